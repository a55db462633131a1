"""Ready-made subsets on the running stack: `compare/ready` on blobs, `experiment/rand16-hub` with a folder to draw from."""

import pytest

from infra.local import azurite
from tasks.records.ledger import entries
from tasks.records.verdict import Verdict
from tasks.store.root import Root
from tests.corpus.corpora import write_subsets
from tests.stack.conftest import DATA, TRAIN, below, run_deployment

pytestmark = [pytest.mark.stack, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("ready")


@pytest.fixture(scope="module")
def sources(stack, sample, folder):
    """Two subsets in the stack's container."""
    names = write_subsets(sample, folder)
    for name in names:
        azurite.upload(stack.azurite_port, "ready", name, folder / name, stack.store_key)
    return {name: f"az://ready/{name}" for name in names}


def given(sources, folder, **changes):
    fields = {key: value for key, value in DATA.items() if key != "name"}
    return {"sources": sources, "depth": 1, "root": str(folder / "root"), "data": fields, "train": TRAIN, **changes}


def test_subsets_in_a_container_end_in_a_verdict(stack, client, sources, folder):
    run = run_deployment(client, "compare/ready", given(sources, folder, seeds=[1, 2]), minutes=9)
    assert run.state.is_completed()
    assert below(client, run) == {"prepare": 1, "train": 4}
    store = Root(folder / "root")
    (name,) = store.names("verdicts")
    (pair,) = Verdict.read(store.open(name).path / "verdict.json").comparisons
    assert (pair.a, pair.b, pair.covers_seeds) == ("top16", "rand16", True)
    assert {row.label for row in pair.strata if row.kind == "source"} == set(sources)


def test_one_of_them_alone_trains_on_the_arm_that_is_there(stack, client, sources, folder):
    run = run_deployment(client, "experiment/top16-ready", given(sources, folder, name="Best, alone"))
    assert run.state.is_completed() and below(client, run) == {"train": 1}
    assert run.name == "Best, alone"
    assert [entry.arm for entry in entries(Root(folder / "root")) if entry.name == "Best, alone"] == ["top16"]


def test_the_random_arm_is_drawn_from_a_copy_of_a_data_set(stack, client, sources, folder, sample):
    drawn = given({**sources, "rand16": sample.as_uri()}, folder, subset="rand16", random_share={"rand16": 0.4})
    run = run_deployment(client, "experiment/rand16-hub", drawn)
    assert run.state.is_completed()
    assert below(client, run) == {"prepare": 1, "train": 1}
    store = Root(folder / "root")
    (text,) = (found for name in store.names("arms") if (found := store.find(name)).spec.get("select") == "random")
    held = text.facts["holdout_texts_removed"] + text.facts["empty_texts"]
    assert text.facts["documents"] + held == round(0.4 * text.facts["population"])
