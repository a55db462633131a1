"""What is registered is added to, never overwritten, wherever the root is."""

import pytest

from tasks.errors import DamagedError
from tasks.records import registration
from tasks.records.registration import Plan
from tasks.store.access import open_blobs
from tasks.store.root import Root

PLAN = Plan(
    said="2026-01-31T12:34:56+00:00",
    code="0.1.0",
    runs_before=0,
    looks_before=0,
    question="q",
    pool="pool-0123456789",
    arms={"top": {"select": "top"}, "random": {"select": "random"}},
    training={"depth": 4, "tokens": None},
    tokens={"top": 1_000, "random": 1_000},
    replicates=4,
    redraw=("init", "sample"),
    target="all",
    pairing="auto",
    level=0.95,
    texts=(),
    core=False,
    control=None,
    allow=(),
    stop=None,
)


def test_a_plan_is_said_once_and_a_changed_one_is_added(tmp_path):
    root = Root(tmp_path)
    registration.say(root, "v", PLAN)
    later = PLAN.model_copy(update={"said": "2026-02-01T00:00:00+00:00", "code": "0.2.0", "runs_before": 8})
    assert registration.say(root, "v", later).later == ()
    changed = later.model_copy(update={"replicates": 6, "texts": ("wiki",)})
    about = registration.say(root, "v", changed)
    assert about.plan == PLAN and about.newest == changed
    assert about.changes == [(changed, {"replicates": "4, now 6", "texts": "nothing, now wiki"})]
    assert registration.say(root, "v", PLAN).later == (changed, PLAN), "back to the first is a change, too"


def test_another_machine_sees_and_adds_to_what_was_said_on_the_first(tmp_path):
    (tmp_path / "remote").mkdir()
    first, second = Root(tmp_path / "first"), Root(tmp_path / "second")
    for root in (first, second):
        root.remote = open_blobs((tmp_path / "remote").as_uri())
    registration.say(first, "v", PLAN)
    registration.say(second, "v", PLAN.model_copy(update={"target": "upper half"}))
    assert [plan.target for plan in registration.read(first, "v").plans] == ["all", "upper half"]


def test_a_damaged_registration_is_named(tmp_path):
    path = tmp_path / "verdicts/v/registered.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"format": 9, "name": "v"}')
    with pytest.raises(DamagedError, match=r"registered\.json cannot be read \(format: .*move it away"):
        registration.say(Root(tmp_path), "v", PLAN)
