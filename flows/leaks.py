"""Near copies of held-out documents in arms that are there: of the holdout, and of texts that came later. Nothing is trained."""

from collections.abc import Sequence
from functools import partial

from flows.sequence import Steps
from tasks.corpus.near.leaks import build_passages, count_leaks, write_found
from tasks.progress import Progress
from tasks.records.layout import ArmFolder
from tasks.records.near import HOLDOUT
from tasks.records.recall import recall
from tasks.spec import Texts, Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.tokens.outside import encode_outside, texts_of


def search_arm(root: Root, arm_id: str, texts: Sequence[Texts], steps: Steps) -> dict[str, Artifact]:
    """What an arm has of the holdout and of these texts, {name of what is held out: its record}; counted unless it was before.

    Raises InputError when there is no such arm, or the texts cannot be read.
    """
    experiment, pool_id = recall(root, arm_id, Training(), seed=1)
    pool = experiment.pool

    def of_holdout(progress: Progress) -> Artifact:
        passages = build_passages(root, pool_id, pool.holdout_near)
        return write_found(root, arm_id, passages, None, removed=False, progress=progress)

    def of_texts(each: Texts, progress: Progress) -> Artifact:
        encoded = encode_outside(root, pool_id, each, progress)
        inputs = {"texts": encoded.manifest}
        what, share = encoded.path.name, pool.holdout_near
        return count_leaks(root, arm_id, what, lambda: texts_of(each), share, inputs, progress)

    found = {HOLDOUT: steps.run(f"Near copies of the holdout in {arm_id}", of_holdout)}
    for each in texts:
        made = steps.run(f"Near copies of {each.name} in {arm_id}", partial(of_texts, each))
        found[made.name.removeprefix(ArmFolder(arm_id).near(""))] = made
    return found
