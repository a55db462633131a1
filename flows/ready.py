"""Ready-made subsets, each of which is an arm: `experiment` and `compare` with a form that asks for little."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.children import cancel_children
from flows.compare import compare_and_show
from flows.deployed import named
from flows.experiment import run_experiment
from tasks.errors import InputError
from tasks.spec import CLOSED, Arm, Depth, Experiment, FieldsOf, Label, Name, Pool, Seed, Share, Sources, Training, Url
from tasks.store.root import DEFAULT_ROOT
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.form import Seeds

Subsets = Annotated[Sources, Field(min_length=2)]
Shares = Annotated[dict[Name, Share], Field(max_length=64, json_schema_extra=CLOSED)]
PoolFields = Annotated[dict[str, Any], FieldsOf(Pool)]
TrainingFields = Annotated[dict[str, Any], FieldsOf(Training)]

# The run form shows plain default values, not ones that a function makes.
SOURCES: dict[Name, Url] = {"top16": "az://raw/top16.5", "rand16": "az://raw/random16.5"}
WHOLE: Shares = {}
SEEDS = [1, 2, 3]
AS_THEY_ARE: dict[str, Any] = {}


@flow(name="experiment", flow_run_name=named("{subset}-ready-s{seed}"), on_cancellation=[cancel_children])
def train_on_subset(
    subset: Name = "top16",
    sources: Subsets = SOURCES,
    random_share: Shares = WHOLE,
    holdout: Url | None = None,
    depth: Depth = 20,
    seed: Seed = 1,
    root: Url = DEFAULT_ROOT,
    data: PoolFields = AS_THEY_ARE,
    train: TrainingFields = AS_THEY_ARE,
    name: Label | None = None,
) -> dict[str, object]:
    """Train on one of several ready-made subsets and score the model on the holdout that they have in common.

    Args:
        subset: The name of the subset to train on.
        sources: All subsets that are to be compared, a name and a URL each: folders of parquet files with a column text, and perhaps
            score and token_count.
        random_share: Sources to take a random part of, by name, such as 0.165; the others are taken whole.
        holdout: Where the documents to score on come from, which no subset may hold; empty: some of each subset.
        depth: Layers of the model.
        seed: Seed of the run.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        data: Other fields of the pool, by name, such as text_column.
        train: Other fields of the training, by name, such as tokens or precision.
        name: What you call the run: shown here, in the ledger and in W&B. It changes nothing else. Empty: subset and seed.
    """
    (arm,) = arms_of([subset], sources, random_share)
    pool, training = pool_of(sources, holdout, data), Training(**{"depth": depth, **train})
    return run_experiment(Experiment(pool=pool, arm=arm, training=training, seed=seed), root, name)


@flow(name="compare", flow_run_name="{name}", on_cancellation=[cancel_children])
def compare_subsets(
    sources: Subsets = SOURCES,
    random_share: Shares = WHOLE,
    holdout: Url | None = None,
    seeds: Seeds = SEEDS,
    depth: Depth = 20,
    name: Name = "ready",
    root: Url = DEFAULT_ROOT,
    data: PoolFields = AS_THEY_ARE,
    train: TrainingFields = AS_THEY_ARE,
) -> dict[str, Any]:
    """Train on each of several ready-made subsets, with every seed and on the same budget, and judge which is better.

    Args:
        sources: The subsets, a name and a URL each: folders of parquet files with a column text, and perhaps score and token_count.
        random_share: Sources to take a random part of, by name, such as 0.165; the others are taken whole.
        holdout: Where the documents to score on come from, which no subset may hold; empty: some of each subset.
        seeds: Seeds of the runs. Two a subset are the fewest that make a verdict, three or more a good one.
        depth: Layers of the model.
        name: Name of the verdict.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        data: Other fields of the pool, by name, such as text_column.
        train: Other fields of the training, by name, such as tokens or precision. The recipe is quiet unless it says otherwise.
    """
    arms, pool = arms_of(list(sources), sources, random_share), pool_of(sources, holdout, data)
    training = Training(**{"depth": depth, "recipe": "quiet", **train})
    spec = ComparisonSpec(name=name, pool=pool, arms=arms, seeds=seeds, training=training)
    return compare_and_show(spec, root)


def arms_of(names: Sequence[str], sources: Mapping[str, str], random_share: Mapping[str, float]) -> list[Arm]:
    """An arm for each name: that source as a whole, or a random part. Raises InputError for a source that is not there."""
    if unknown := [name for name in (*names, *random_share) if name not in sources]:
        raise InputError(f"There is no source {unknown[0]!r}: name one of {', '.join(sources)}.")
    return [
        Arm(name=name, select="random", subset=name, share=random_share[name], order="shuffled")
        if name in random_share
        else Arm(name=name, select="subset", subset=name, order="shuffled")
        for name in names
    ]


def pool_of(sources: Mapping[str, str], holdout: str | None, data: Mapping[str, Any]) -> Pool:
    """The pool of ready-made subsets, with other fields as `data` says."""
    return Pool(**{"name": "ready", "format": "prebuilt", "sources": sources, "holdout": holdout, **data})
