"""Parameters: what counts for identity, and what is refused before anything is spent."""

import pytest
from pydantic import ValidationError

from tasks.records.layout import arm_id, pool_id, run_id
from tasks.spec import Arm, Experiment, Host, Pool, Training
from tasks.store.blobs import Blob

BLOBS = [Blob("a.parquet", 10, "e1"), Blob("b.parquet", 20, "e2")]


def test_how_an_arm_is_made_does_not_change_what_it_is():
    one, eight = Training(gpus=1, micro_batch=4, device="cpu"), Training(gpus=8, micro_batch=32, device="cuda")
    assert one.identity() == eight.identity()
    assert pool_id(Pool(download="bulk"), BLOBS) == pool_id(Pool(), BLOBS)


def test_every_field_that_determines_content_changes_the_name():
    pool = pool_id(Pool(), BLOBS)
    assert pool_id(Pool(), [BLOBS[0], Blob("b.parquet", 20, "e3")]) != pool
    assert pool_id(Pool(seed=1), BLOBS) != pool
    assert arm_id(Arm(select="random"), pool) != arm_id(Arm(), pool)
    assert arm_id(Arm(), "other-pool") != arm_id(Arm(), pool)
    assert run_id(Experiment(seed=2), "arm") != run_id(Experiment(seed=1), "arm")
    assert run_id(Experiment(training=Training(depth=12)), "arm").startswith("top16-d12-s1-")
    assert run_id(Experiment(held=("init",)), "arm") != run_id(Experiment(), "arm")


def test_a_field_that_came_later_changes_no_name_unless_it_is_set():
    assert "held" not in Experiment().identity()
    held = Experiment(seed=7, held=("init",))
    assert list(held.identity()["held"]) == ["init"]
    assert [held.seed_of(draw) for draw in ("init", "order", "sample")] == [1, 7, 7]


def test_a_field_that_came_later_counts_only_where_it_is_set():
    assert Arm(epochs=1).identity() == Arm().identity() and "epochs" not in Arm().identity()
    assert Arm(epochs=2).identity() == {**Arm().identity(), "epochs": 2}


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (Arm, {"share": 0}),
        (Arm, {"share": 1.5}),
        (Arm, {"select": "best"}),
        (Arm, {"name": "../x"}),
        (Arm, {"shair": 0.5}),
        (Pool, {"score": {}}),
        (Pool, {"score": {"a": -1.0}}),
        (Training, {"precision": "fp4"}),
        (Training, {"tokens": 10**9, "tokens_per_parameter": 10.5}),
        (Training, {"window_pattern": "SXL"}),
    ],
)
def test_bad_values_are_refused(model, values):
    with pytest.raises(ValidationError):
        model(**values)


def test_the_server_of_a_host_is_the_one_that_provisions_it(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4871/api")
    assert Host(address="host").server == "http://127.0.0.1:4871/api"
    assert "default" not in Host.model_json_schema()["properties"]["server"]  # the form leaves it empty
