"""The deployed ladder on the running stack: three depths, of which one is there already, and its prediction on its page."""

import json

import pytest

from tasks.records.ladder import Ladder
from tasks.store.root import Root
from tests.stack.conftest import ARM, TRAIN, artifacts_of, below, run_deployment

pytestmark = [pytest.mark.stack, pytest.mark.slow]

ARMS = [
    {**ARM, "order": "shuffled", "share": 0.4},
    {"name": "low", "select": "bottom", "share": 0.4, "order": "shuffled"},
]
ALIKE = {**TRAIN, "batch_tokens": 256, "recipe": "quiet", "eval_every": 1_000, "save_every": 1_000}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("root")


def asked(parameters, root, name, **train):
    given = {"data": parameters["data"], "arms": ARMS, "replicates": 2, "seeds": None, "root": str(root), "name": name}
    return given | {"train": {**ALIKE, "tokens": None, "tokens_per_parameter": 0.003, **train}}


def test_a_ladder_trains_what_is_lacking_and_shows_what_it_predicts(stack, client, parameters, root):
    middle = run_deployment(client, "compare/demo", asked(parameters, root, "climb-d2", depth=2), minutes=9)
    assert below(client, middle) == {"prepare": 1, "train": 4}

    given = asked(parameters, root, "climb") | {"to": 4, "depths": [1, 2, 3], "most": 9}
    run = run_deployment(client, "ladder/top16-vs-rand16", given, minutes=9)
    assert run.state.is_completed() and below(client, run) == {"train": 8}, "d1 and d3 alone"
    trainers = {json.loads(lock.read_text())["pid"] for lock in root.glob("runs/*/.lock")}
    assert len(trainers) == 1, "one process trained all"

    store = Root(root)
    (name,) = store.names("ladders")
    found = Ladder.read(store.open(name).path / "ladder.json")
    (forecast,) = found.forecasts
    assert [rung.depth for rung in forecast.rungs] == [1, 2, 3] and forecast.low < forecast.difference < forecast.high
    plan = json.loads((root / "verdicts" / "climb-d2" / "registered.json").read_text())
    assert len(plan["plans"]) == 1 and len(plan["looks"]) == 1, "the rung is the same question, and no second look"
    shown = {artifact.key: artifact for artifact in artifacts_of(client, run)}
    page = shown["ladder-climb"].data
    assert "d4, predicted" in page and "Not calibrated" in page and "| d2 |" in page and "data:image" in page
    assert {"verdict-climb-d1", "verdict-climb-d2", "verdict-climb-d3", "runs-climb-d1", "runs-climb-d3"} <= set(shown)
    rows = json.loads(shown["runs-climb-d3"].data)
    assert [row["state"] for row in rows] == ["completed"] * 4


def test_again_it_finds_all_complete_and_says_the_same(stack, client, parameters, root):
    before = Root(root).names("ladders")
    given = asked(parameters, root, "climb") | {"to": 4, "depths": [1, 2, 3], "most": 9}
    run = run_deployment(client, "ladder/top16-vs-rand16", given, minutes=9)
    assert run.state.is_completed() and below(client, run) == {} and Root(root).names("ladders") == before


def test_a_ladder_that_costs_too_much_ends_with_a_sentence_and_spends_nothing(stack, client, parameters, root):
    given = asked(parameters, root, "dear") | {"to": 4, "depths": [1, 2, 3]}
    run = run_deployment(client, "ladder/top16-vs-rand16", given)
    assert run.state.is_failed() and below(client, run) == {} and "raise most" in run.state.message
