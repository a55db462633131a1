"""Disagreement documents: those of the holdout that one arm's rule would rather take than the other's.

No arm takes a document of the holdout. But an arm's rule says how likely it would have taken each, by its rating alone, had it not been held
out: certainly above the cut-off of a selection by score, as likely as any other in a random one, and never without a rating that its
population asks for. Where that is unequal between two arms, their
training texts differ in documents like these, and there their models should differ. Like all strata these explore, with bands that hold together.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tasks.records.layout import STRATA, ArmFolder, PoolFolder
from tasks.records.scores import strata_scores
from tasks.spec import Arm, Pool, columns_of
from tasks.store.artifact import Artifact, Manifest
from tasks.store.root import Root

ALIKE = 0.01
"""Chances that differ by less, as a part of either, are equal: two draws of one random arm need not lose as many duplicates."""

LEFT_OUT = ("empty_texts", "duplicates", "holdout_texts_removed", "near_copies_removed")
"""Documents that were selected and are not in the arm."""

Chances = Mapping[str, np.ndarray]
"""{label: how likely the arm takes a document like each of the holdout's, 0 to 1, (documents,)}; arms whose rule is not by a rating alone are left out."""


Ratings = Sequence[tuple[Sequence[str], np.ndarray]]
"""Columns of ratings, and which documents have all of them, bool (documents,)."""


def chances(root: Root, results: Mapping[str, Sequence[Artifact]]) -> dict[str, np.ndarray]:
    """Those of the arms of a verdict, by their parameters and by what was counted when they were selected."""
    runs = {label: of_arm[0].manifest for label, of_arm in results.items()}
    arms = {label: _arm(run) for label, run in runs.items()}
    scores = {label: found for label, run in runs.items() if (found := _scores(root, arms[label], run)) is not None}
    known: Ratings = [
        (columns_of(score), np.isfinite(scores[label]))
        for label in scores
        if not isinstance(score := arms[label].score or {}, str)
    ]
    rules = {label: _of(root, runs[label], arms[label], scores[label], known) for label in scores}
    return {label: chance for label, chance in rules.items() if chance is not None}


def disagreements(known: Chances) -> list[tuple[tuple[str, str], np.ndarray, list[str]]]:
    """(pair of arms, code of each document, label of each code) of every pair whose rules do not take all documents alike."""
    found = []
    for a, b in combinations(known, 2):
        alike = np.isclose(known[a], known[b], rtol=ALIKE, atol=0)
        codes = np.select([alike, known[a] > known[b]], [2, 0], 1)
        if (codes != 2).any():
            found.append(((a, b), codes, [f"rather in {a}", f"rather in {b}", f"equally in {a} and {b}"]))
    return found


def drawn_of_ties(root: Root, run: Manifest) -> float | None:
    """The part of an arm's documents, 0 to 1, that its seed drew from those with the score at the cut-off; None where it is not at hand."""
    text = root.find(ArmFolder(run.inputs["arm"]).text)
    facts = text.facts if text else {}
    tied, taken, documents = (facts.get(name) for name in ("cut_off_documents", "cut_off_taken", "documents"))
    if not (tied and taken and documents):
        return None
    selected = documents + sum(facts.get(name, 0) for name in LEFT_OUT)  # as what was taken is counted
    return min(1.0, taken / selected) if taken < tied else 0.0


def _arm(run: Manifest) -> Arm:
    arm = Arm.model_validate(run.spec["arm"])
    return arm.of(Pool.model_validate(run.spec["pool"])) if "pool" in run.spec else arm


def _scores(root: Root, arm: Arm, run: Manifest) -> np.ndarray | None:
    """The holdout's documents by the score of an arm, float64 (documents,), NaN without one; None where they are not at hand."""
    strata = PoolFolder(run.inputs["pool"]).strata(arm.score) if arm.score else ""
    if not strata or root.find(strata) is None:
        return None
    return strata_scores(root.open(strata).path / STRATA)


def _of(root: Root, run: Manifest, arm: Arm, scores: np.ndarray, known: Ratings) -> np.ndarray | None:
    """Of one arm; None where more than a rating decides, or where its arm or its ratings are not at hand."""
    if arm.where or arm.ids or arm.subset or arm.match or arm.parts or arm.unrated != "exclude":
        return None
    text = root.find(ArmFolder(run.inputs["arm"]).text)
    own: Ratings = [(columns_of(arm.score or {}), np.isfinite(scores))] if arm.by_score else []
    rated = _rated(arm, [*known, *own], len(scores))
    if text is None or rated is None:
        return None
    facts = text.facts
    if arm.select == "all":
        return np.asarray(rated, float)
    if arm.select == "random" and facts.get("population"):
        return np.where(rated, facts["documents"] / facts["population"], 0.0)
    cut = facts.get("cut_off_score")
    if arm.select not in ("top", "bottom") or cut is None:
        return None
    if arm.min_score is not None:
        return np.where(rated & (scores >= arm.min_score), 1.0, 0.0)
    above = scores > cut if arm.select == "top" else scores < cut
    tied = facts["cut_off_taken"] / facts["cut_off_documents"]
    return np.where(rated, np.where(above, 1.0, np.where(scores == cut, tied, 0.0)), 0.0)


def _rated(arm: Arm, known: Ratings, documents: int) -> np.ndarray | None:
    """Which documents have every rating that the arm's population asks for, bool (documents,); None where the scores of the verdict's arms
    do not tell."""
    wanted = set(arm.population or ())
    fitting = [(columns, there) for columns, there in known if wanted.issuperset(columns)]
    if wanted.difference(*(columns for columns, _ in fitting)):
        return None
    rated: np.ndarray = np.logical_and.reduce([np.ones(documents, bool), *(there for _, there in fitting)])
    return rated
