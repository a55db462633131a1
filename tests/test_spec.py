"""Parameters: what counts for identity, and what is refused before anything is spent."""

import re
from decimal import Decimal
from itertools import product

import pytest
from pydantic import ValidationError

from tasks.records.layout import arm_id, pool_id, run_id
from tasks.spec import Arm, Experiment, Host, Pool, Training, with_common_population
from tasks.spec.base import LARGE, SMALL, UNITS, Written
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
    assert arm_id(Arm(select="random"), Pool(), pool) != arm_id(Arm(), Pool(), pool)
    assert arm_id(Arm(), Pool(), "other-pool") != arm_id(Arm(), Pool(), pool)
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
        (Arm, {"score": {"a": 0.0}}),
        (Arm, {"score": "a +"}),
        (Arm, {"where": "a = 1"}),
        (Arm, {"min_score": 3.0, "select": "random"}),
        (Arm, {"min_score": 3.0, "tokens": 5}),
        (Arm, {"match": "source", "select": "all"}),
        (Arm, {"match": "source", "share_of": "tokens"}),
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


def test_a_pool_does_not_depend_on_its_score_and_an_arm_on_who_says_what_it_is():
    weights = {"b": 2.0, "a": 1.0, "c": 0.0}
    pool = Pool(score=weights)
    assert pool_id(pool, BLOBS) == pool_id(Pool(), BLOBS)
    assert (
        arm_id(Arm(), pool, "p") == arm_id(Arm(score={"a": 1.0, "b": 2.0}), Pool(), "p") != arm_id(Arm(), Pool(), "p")
    )
    assert run_id(Experiment(pool=pool), "arm") == run_id(Experiment(arm=Arm(score=weights)), "arm")
    for fields in ({}, {"score": "x - y"}, {"unrated": "lowest"}, {"population": ("z",)}):
        for format in ("rated", "unrated", "prebuilt"):
            kind = pool.model_copy(update={"format": format})
            settled = Arm(**fields).of(kind)
            assert settled.of(kind) == settled == Arm.model_validate(settled.identity())
    assert Arm(score="y + x").of(pool).population == ("x", "y")
    arms = with_common_population(pool, [Arm(), Arm(name="other", score="x"), Arm(name="control", select="random")])
    assert [arm.population for arm in arms] == [("a", "b", "x")] * 3
    assert "where" not in Arm().identity()


def test_the_server_of_a_host_is_the_one_that_provisions_it(monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:4871/api")
    assert Host(address="host").server == "http://127.0.0.1:4871/api"
    assert "default" not in Host.model_json_schema()["properties"]["server"]  # the form leaves it empty


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("2B", 2 * 10**9),
        ("2e9", 2 * 10**9),
        ("1.5m", 1_500_000),
        ("500 k", 500_000),
        ("2_000", 2_000),
        (2e9, 2 * 10**9),
        ("0.5B", 5 * 10**8),
        ("1,500,000", 1_500_000),
        ("200e6", 2 * 10**8),
        ("1.2345e9", 1_234_500_000),
        ("2.097152e+06", 2**21),
    ],
)
def test_tokens_are_taken_as_people_write_them(written, number):
    assert Training(tokens=written, batch_tokens=None).tokens == number
    assert Arm(tokens=written).identity() == Arm(tokens=number).identity()


@pytest.mark.parametrize("written", ["2X", "1.0000001k", "1.2345e3", "-2B", "B", "", "9e99T", "2B\n", "0.0k"])
def test_what_is_no_number_of_tokens_is_refused(written):
    with pytest.raises(ValidationError):
        Training(tokens=written)


@pytest.mark.parametrize("least", [1, 1_000])
def test_whole_numbers_are_those_of_their_patterns(least):
    """The schema of a form has these patterns alone, the model bounds, too: they agree."""
    patterns = LARGE if least == 1_000 else SMALL + LARGE
    for digits, decimals, unit in product(range(1, 17), range(14), ["", *"kKmMbBgGtT"]):
        for first in "19":
            text = first * digits + ("." + "9" * decimals if decimals else "") + unit
            number = Decimal(text.rstrip("kKmMbBgGtT")) * UNITS[unit.lower()]
            whole = least <= number < 10**15 and number == int(number) and (decimals == 0 or unit != "")
            assert bool(re.fullmatch("|".join(patterns), text)) == whole, text
            if whole:
                assert Written(patterns).number(text) == number
