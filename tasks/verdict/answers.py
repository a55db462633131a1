"""Task scores (CORE and its tasks) of two arms: differences of means over seeds, with Student's interval.

Every run answers the same questions, so an interval speaks of new seeds, not of new questions. Variances and degrees of freedom are
those of `replicates`: Welch's t-test for arms of equal numbers, the paired t-test where seeds are paired.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtr, stdtrit

from tasks.errors import InputError
from tasks.records.verdict import TaskDifference
from tasks.store.artifact import Artifact
from tasks.verdict.replicates import Spread, samples_of

CORE = "CORE"
Answers = tuple[list[str], dict[str, np.ndarray]]
"""Names of the scores (CORE first), and centered accuracies (seeds, scores) per arm: 0 is guessing, 1 is all right."""


def read(results: Mapping[str, Sequence[Artifact]]) -> Answers:
    """The scores in the facts of `runs/<run>/core`. Raises InputError when they are of other questions than each other."""
    runs = [run for each in results.values() for run in each]
    first = runs[0]
    for run in runs:
        if (run.manifest.inputs["bundle"], run.manifest.spec) != (first.manifest.inputs["bundle"], first.manifest.spec):
            raise InputError(f"{run.name} answers other questions than {first.name}: delete one and evaluate it again.")
    names = list(first.facts["tasks"])

    def row(run: Artifact) -> list[float]:
        return [run.facts["core"], *(run.facts["tasks"][name]["centered"] for name in names)]

    return [CORE, *names], {label: np.array([row(run) for run in each]) for label, each in results.items()}


def compare(a: str, b: str, answers: Answers, level: float = 0.95, *, paired: bool = False) -> list[TaskDifference]:
    """One difference a score. Interval and p are None where an arm has one seed, or seeds make no difference."""
    names, values = answers
    spread = Spread.of(samples_of(values[a], values[b], paired=paired))
    rows = []
    for i, name in enumerate(names):
        ours, theirs = (float(values[label][:, i].mean()) for label in (a, b))
        difference, low, high, p = ours - theirs, None, None, None
        if spread.known and spread.error[i] > 0:
            error, freedom = float(spread.error[i]), float(spread.freedom[i])
            reach = float(stdtrit(freedom, (1 + level) / 2)) * error
            low, high = difference - reach, difference + reach
            p = float(2 * stdtr(freedom, -abs(difference) / error))
        rows.append(TaskDifference(label=name, a=ours, b=theirs, difference=difference, low=low, high=high, p=p))
    return rows
