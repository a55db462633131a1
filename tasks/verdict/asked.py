"""The answers of all runs to questions: bits per byte of the right ones, like documents, and how many are right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tasks.errors import InputError
from tasks.records.layout import ANSWERS
from tasks.records.questions import as_scores, read_answers
from tasks.store.artifact import Artifact
from tasks.verdict.paired import cluster_sums
from tasks.verdict.strata import ScoredDocuments, StratumSums, sum_scores

ACCURACIES = {"accuracy": "right", "accuracy_normed": "right_normed"}
"""{field of a verdict: column of the answers}"""


@dataclass(frozen=True)
class Accuracies:
    """Questions with choices in each cluster, (2, C), and those among them that each run answers right, (seeds, 2, C) per arm.

    The first of two is by log-likelihood, the second by log-likelihood per character.
    """

    sizes: np.ndarray
    right: dict[str, np.ndarray]


def sum_answers(
    results: Mapping[str, Sequence[Artifact]], what: str, leaked: np.ndarray | None = None
) -> tuple[tuple[ScoredDocuments, StratumSums], Accuracies]:
    """Read the answers of every run, {arm: runs}. `what` names the questions, `leaked` those that have a near copy in an arm.

    Raises InputError when runs were asked different ones, DamagedError when a log-likelihood is not a number.
    """
    tables = {run.name: read_answers(run.path / ANSWERS) for runs in results.values() for run in runs}
    documents, sums = sum_scores(
        results, f"questions {what}", leaked=leaked, read=lambda run: as_scores(tables[run.name])
    )
    with_choices = next(iter(tables.values()))["right"].is_valid().to_numpy()
    for name, table in tables.items():
        if not np.array_equal(table["right"].is_valid().to_numpy(), with_choices):
            raise InputError(f"{name} was asked other questions than the runs before it: score it on the same.")
    shape = (1, documents.clusters)

    def summed(values: np.ndarray) -> np.ndarray:
        """(..., questions) as sums by cluster, (..., 1, C)."""
        return cluster_sums(values.astype(float), np.zeros(values.shape[-1], np.int64), documents.cluster, shape)

    def right(table: pa.Table) -> np.ndarray:
        columns = (table[column].fill_null(False).to_numpy() for column in ACCURACIES.values())
        return np.concatenate([summed(values) for values in columns])

    sizes = np.concatenate([summed(with_choices)] * len(ACCURACIES))
    found = {label: np.stack([right(tables[run.name]) for run in runs]) for label, runs in results.items()}
    return (documents, sums), Accuracies(sizes, found)
