"""What the deployments of ready-made subsets ask for, as the pool and the arms that they stand for."""

import pytest
import yaml
from pydantic import ValidationError

from flows.ready import arms_of, pool_of
from infra.local import deploy
from tasks.errors import InputError
from tasks.records.layout import arm_id, pool_id
from tasks.spec import Training
from tasks.verdict.comparison import ComparisonSpec

DEPLOYMENTS = yaml.safe_load((deploy.DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
READY = {d["name"]: d["parameters"] for d in DEPLOYMENTS if "ready" in d["tags"]}


def made_by(deployment):
    """The id of the pool and of each arm."""
    given = READY[deployment]
    pool = pool_of(given["sources"], None, {})
    made = pool_id(pool, [])
    names = [given["subset"]] if "subset" in given else list(given["sources"])
    arms = arms_of(names, given["sources"], given.get("random_share", {}))
    return [made, *(arm_id(arm, pool, made) for arm in arms)]


def test_one_subset_alone_is_what_the_comparison_trains_on():
    pool, top, rand = made_by("ready")
    assert made_by("top16-ready") == [pool, top]
    assert made_by("rand16-ready") == [pool, rand]
    assert made_by("rand16-hub") == [made_by("ready-hub")[i] for i in (0, 2)]


def test_arms_of_subsets_are_matched():
    for given in (READY["ready"], READY["ready-hub"]):
        arms = arms_of(list(given["sources"]), given["sources"], given.get("random_share", {}))
        pool = pool_of(given["sources"], None, {})
        ComparisonSpec("x", pool, arms, [1, 2], Training(depth=4, tokens=1_000)).require_matched()


def test_the_random_arm_is_16_5_percent_of_a_data_set_by_seed_42():
    given = READY["ready-hub"]
    _, arm = arms_of(list(given["sources"]), given["sources"], given["random_share"])
    assert (arm.select, arm.share, arm.seed, arm.order) == ("random", 0.165, 42, "shuffled")
    assert given["sources"][arm.subset] == "hf://airtrain-ai/fineweb-edu-fortified"


def test_what_is_not_there_is_named():
    with pytest.raises(InputError, match="no source 'rand17': name one of top16, rand16"):
        arms_of(["top16"], READY["ready"]["sources"], {"rand17": 0.1})
    with pytest.raises(ValidationError, match="text_colunm"):
        pool_of(READY["ready"]["sources"], None, {"text_colunm": "body"})
