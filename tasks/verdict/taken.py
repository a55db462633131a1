"""Disagreement documents: those of the holdout that one arm's rule would rather take than the other's.

No arm takes a document of the holdout. But an arm's rule says how likely it would have taken each, by its rating alone, had it not been held
out: certainly above the cut-off of a selection by score, as likely as any other in a random one. Where that is unequal between two arms, their
training texts differ in documents like these, and there their models should differ. Like all strata these explore, with bands that hold together.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from tasks.records.layout import STRATA, ArmFolder, PoolFolder
from tasks.records.scores import strata_scores
from tasks.spec import Arm
from tasks.store.artifact import Artifact, Manifest
from tasks.store.root import Root

ALIKE = 0.01
"""Chances that differ by less, as a part of either, are equal: two draws of one random arm need not lose as many duplicates."""

Chances = Mapping[str, np.ndarray]
"""{label: how likely the arm takes a document like each of the holdout's, 0 to 1, (documents,)}; arms whose rule is not by a rating alone are left out."""


def chances(root: Root, results: Mapping[str, Sequence[Artifact]]) -> dict[str, np.ndarray]:
    """Those of the arms of a verdict, by their parameters and by what was counted when they were selected."""
    found = {label: _of(root, runs[0].manifest) for label, runs in results.items()}
    return {label: chance for label, chance in found.items() if chance is not None}


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
    return min(1.0, taken / documents) if taken < tied else 0.0


def _of(root: Root, run: Manifest) -> np.ndarray | None:
    """Of one arm; None where more than a rating decides, or where its arm or its ratings are not at hand."""
    arm = Arm.model_validate(run.spec["arm"])
    if arm.where or arm.ids or arm.subset or arm.match or arm.parts or arm.unrated != "exclude":
        return None
    text = root.find(ArmFolder(run.inputs["arm"]).text)
    strata = PoolFolder(run.inputs["pool"]).strata(arm.score) if arm.score else ""
    if text is None or not strata or root.find(strata) is None:
        return None
    scores = strata_scores(root.open(strata).path / STRATA)
    rated = np.isfinite(scores)
    facts = text.facts
    if arm.select == "all":
        return np.asarray(rated, float)
    if arm.select == "random" and facts.get("population"):
        return np.where(rated, facts["documents"] / facts["population"], 0.0)
    cut = facts.get("cut_off_score")
    if arm.select not in ("top", "bottom") or cut is None:
        return None
    above = scores > cut if arm.select == "top" else scores < cut
    tied = facts["cut_off_taken"] / facts["cut_off_documents"]
    return np.where(above, 1.0, np.where(scores == cut, tied, 0.0))
