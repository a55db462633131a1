"""Near copies of held-out documents in arms that are there: of the holdout, and of texts and questions that came later. Nothing is trained."""

from collections.abc import Sequence
from functools import partial

from flows.sequence import Steps
from tasks.corpus.near.leaks import Beside, build_passages, count_leaks, write_found
from tasks.progress import Progress
from tasks.records.near import HOLDOUT, of_questions
from tasks.records.recall import recall
from tasks.spec import Questions, Texts, Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.tokens.outside import encode_outside, texts_of
from tasks.tokens.questions import encode_questions, question_texts


def search_arm(
    root: Root, arm_id: str, texts: Sequence[Texts], steps: Steps, questions: Sequence[Questions] = ()
) -> dict[str, Artifact]:
    """Near copies in an arm of the holdout, these texts and these questions, {name of what is held out: its record}. What was counted
    before is reused.

    Raises InputError when there is no such arm, or texts or questions cannot be read.
    """
    experiment, pool_id = recall(root, arm_id, Training(), seed=1)
    pool = experiment.pool

    def of_holdout(progress: Progress) -> Artifact:
        passages = build_passages(root, pool_id, pool.holdout_near)
        return write_found(root, arm_id, passages, None, removed=False, progress=progress)

    def beside(progress: Progress) -> dict[str, Artifact]:
        wanted = []
        for each in texts:
            encoded = encode_outside(root, pool_id, each, progress)
            wanted.append(Beside(encoded.path.name, partial(texts_of, each), {"texts": encoded.manifest}))
        for one in questions:
            encoded = encode_questions(root, pool_id, one, progress)
            inputs = {"questions": encoded.manifest}
            wanted.append(Beside(of_questions(encoded.path.name), partial(question_texts, one), inputs))
        made = count_leaks(root, arm_id, wanted, pool.holdout_near, progress)
        return {each.what: artifact for each, artifact in zip(wanted, made, strict=True)}

    found = {HOLDOUT: steps.run(f"Near copies of the holdout in {arm_id}", of_holdout)}
    if texts or questions:
        names = ", ".join([*(each.name for each in texts), *(one.name for one in questions)])
        found |= steps.run(f"Near copies of {names} in {arm_id}", beside)
    return found
