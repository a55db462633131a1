"""Near copies of the documents that decide, by arm: which documents a verdict is also given without."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tasks.records.layout import ArmFolder
from tasks.records.near import leaked
from tasks.records.verdict import ArmLeaks
from tasks.store.artifact import Artifact
from tasks.store.root import Root


@dataclass(frozen=True)
class Leaks:
    """What was found in each arm, and the documents that have a near copy in any, rising."""

    arms: tuple[ArmLeaks, ...]
    documents: np.ndarray


def read_leaks(root: Root, results: Mapping[str, Sequence[Artifact]], what: str) -> Leaks | None:
    """Near copies of the holdout, or of texts or questions by their name, in the arms that the runs of `results`, {arm: runs}, trained on.

    An arm of several draws has what any of them has. None where one arm was not searched. What an arm leaves out is not in it.
    """
    arms, everywhere = [], [np.zeros(0, np.int64)]
    for label, runs in results.items():
        drawn = sorted({run.manifest.inputs["arm"] for run in runs})
        names = [ArmFolder(arm).near(what) for arm in drawn]
        if not all(map(root.find, names)):
            return None
        made = [root.open(name) for name in names]
        inside = [each for each in made if not each.facts["removed"]]
        documents = np.unique(np.concatenate([everywhere[0], *(leaked(each.path) for each in inside)]))
        everywhere.append(documents)
        arms.append(
            ArmLeaks(
                label=label,
                what=what,
                documents=made[0].facts["documents"],
                unsearchable=made[0].facts["unsearchable"],
                leaked=len(documents),
                copies=sum(each.facts["copies"] for each in inside) / len(made),
                removed=sum(each.facts["copies"] for each in made if each.facts["removed"]) / len(made),
            )
        )
    return Leaks(tuple(arms), np.unique(np.concatenate(everywhere)))
