"""What is registered is added to, never overwritten, wherever the root is."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tasks.errors import DamagedError
from tasks.records import registration
from tasks.records.registration import Plan
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


def test_what_two_hosts_say_at_once_is_all_kept(azure, tmp_path):
    hosts = [Root(f"az://{azure}/root", tmp_path / name) for name in ("here", "there")]

    def say(number: int) -> None:
        registration.say(hosts[number % 2], "v", PLAN.model_copy(update={"replicates": 2 + number}))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(say, range(8)))
    for host in hosts:
        assert sorted(plan.replicates for plan in registration.read(host, "v").plans) == list(range(2, 10))


def test_a_damaged_registration_is_named(tmp_path):
    path = tmp_path / "verdicts/v/registered.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"format": 9, "name": "v"}')
    with pytest.raises(DamagedError, match=r"registered\.json cannot be read \(format: .*move it away"):
        registration.say(Root(tmp_path), "v", PLAN)
