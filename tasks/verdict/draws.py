"""What replicates redraw, and the parts of their variance: between draws of a random arm, and between runs on one draw.

Runs on one draw of a random arm share its documents, so they are not independent replicates of the selection: where a label holds
several draws, each counts once, with the mean of its runs. The two parts of the variance of a run can be told apart where a label holds
several draws and one of them several runs: one-way analysis of variance with random effects and unequal numbers (Searle, Casella and
McCulloch, Variance Components, 1992, chapter 3).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.spec import Arm, Draw
from tasks.store.artifact import Manifest


@dataclass(frozen=True)
class Parts:
    """Standard deviations of one run's score."""

    between: float
    """Of the draws."""
    within: float
    """Of runs on one draw."""


def replicates(values: np.ndarray, draws: Sequence[str]) -> np.ndarray:
    """The independent replicates among runs, (runs, ...) -> (replicates, ...): the mean over the runs of each draw.

    `draws`: what each run was trained on. If that is the same for all, each run is a replicate.
    """
    places = _places(draws)
    if len(places) == 1:
        return values
    return np.stack([values[place].mean(0) for place in places])


def nested(draws: Sequence[str]) -> bool:
    """Whether a label holds several draws and one of them several runs."""
    return 1 < len(set(draws)) < len(draws)


def parts(scores: np.ndarray, draws: Sequence[str]) -> Parts | None:
    """The parts of the spread of scores, (runs,); None where the design cannot tell them apart."""
    if not nested(draws):
        return None
    groups = [scores[place] for place in _places(draws)]
    counts, total = np.array([len(group) for group in groups]), len(scores)
    within = sum(float(((group - group.mean()) ** 2).sum()) for group in groups) / (total - len(groups))
    means = np.array([group.mean() for group in groups])
    between = float((counts * (means - scores.mean()) ** 2).sum()) / (len(groups) - 1)
    size = (total - (counts**2).sum() / total) / (len(groups) - 1)
    return Parts(between=max(0.0, (between - within) / size) ** 0.5, within=within**0.5)


def redrawn(results: Sequence[Manifest], draws: Sequence[str]) -> tuple[Draw, ...]:
    """What differs by chance between the runs of a label; the rows of a budget are a sample too, of a random arm as well."""
    spec = results[0].spec
    arm, held = Arm.model_validate(spec["arm"]), spec.get("held", ())
    rows = any(each.facts.get("rows_left") for each in results)
    there: dict[Draw, bool] = {
        "init": "init" not in held,
        "order": "order" not in held and (arm.order == "shuffled" or len(set(draws)) > 1),
        "sample": len(set(draws)) > 1 or ("sample" not in held and rows),
    }
    return tuple(draw for draw, is_there in there.items() if is_there)


def _places(draws: Sequence[str]) -> list[list[int]]:
    """The runs of each draw, by their places."""
    found: dict[str, list[int]] = {}
    for place, draw in enumerate(draws):
        found.setdefault(draw, []).append(place)
    return list(found.values())
