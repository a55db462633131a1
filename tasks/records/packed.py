"""A packed arm on disk: what each row of tokens holds, and which rows a budget takes."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from tasks.records.draws import BUDGET, ORDER, random_bits
from tasks.records.layout import CONTENTS, ArmFolder
from tasks.records.scaling import ModelShape, TrainingPlan, budget_tokens, plan_training
from tasks.spec import Training
from tasks.store.root import Root

ROW_CONTENTS = np.dtype([("documents", "<u4"), ("bytes", "<u4"), ("score", "<f4")])
"""Documents that begin in the row; bytes of text that it trains on; mean score of its tokens' documents, NaN without a rating."""


def read_contents(folder: Path) -> np.ndarray:
    """What each row of a packed arm holds: ROW_CONTENTS (rows,)."""
    return np.fromfile(folder / CONTENTS, ROW_CONTENTS)


def choose_rows(
    rows: int,
    count: int,
    training: Training,
    seed: int,
    *,
    shuffled: bool = False,
    epochs: int = 1,
    order_seed: int | None = None,
) -> np.ndarray:
    """The rows of an arm that a budget of `count` of its `rows` reads, in reading order: int64 (count,).

    They are a random subset drawn by `seed`, so their documents are as good as the arm's however it was ordered when packed; or
    the arm's front, if `training.budget_from` says so. A smaller budget takes a part of what a larger one takes. Each row is
    read `epochs` times, except one that is read less often where `count` is not a multiple. The rows of a `shuffled` arm are read
    in an order drawn by `order_seed` (default: `seed`), a new one each epoch: neighbours on disk may hold one document, and a
    batch should not.
    """
    order_seed = seed if order_seed is None else order_seed
    each, more = divmod(count, epochs)
    read = []
    for epoch in range(epochs):
        chosen = _take(rows, each + (epoch < more), training, seed)
        # The visits of all epochs are numbered in sequence, so that each epoch draws an order of its own.
        read.append(chosen[np.argsort(random_bits(order_seed, ORDER, epoch * rows + chosen))] if shuffled else chosen)
    return np.concatenate(read)


def _take(rows: int, count: int, training: Training, seed: int) -> np.ndarray:
    """Ascending numbers of the `count` of `rows` that a budget takes."""
    if training.budget_from == "front" or count >= rows:
        return np.arange(count)
    if not count:
        return np.arange(0)
    bits = random_bits(seed, BUDGET, np.arange(rows))
    return np.flatnonzero(bits <= np.partition(bits, count - 1)[count - 1])  # all draws are distinct


@dataclass(frozen=True)
class TrainedText:
    """What a training reads of its arm. The fields are those of a result's facts; None where nothing says it.

    A row that is read several times counts once.
    """

    trained_documents: int
    """Those that begin in the rows that are read."""
    trained_bytes: int
    """UTF-8, of the text in those rows."""
    text_share: float
    """`trained_bytes` as a part of the arm's text, what packing cropped included."""
    mean_score: float | None
    """The mean over those rows of what `ROW_CONTENTS` says of each."""
    arm_mean_score: float | None
    """The same over all rows of the arm."""
    epochs: int
    """How often the rows are read."""

    @classmethod
    def of(cls, contents: np.ndarray, chosen: np.ndarray, arm_bytes: int, epochs: int = 1) -> "TrainedText":
        """Add up the `chosen` of an arm's rows. `contents`: ROW_CONTENTS (rows,); `arm_bytes`: of all text in the arm."""
        read = contents[np.unique(chosen)]
        trained = int(read["bytes"].sum(dtype=np.int64))
        return cls(
            trained_documents=int(read["documents"].sum(dtype=np.int64)),
            trained_bytes=trained,
            text_share=trained / arm_bytes,
            mean_score=_mean(read["score"]),
            arm_mean_score=_mean(contents["score"]),
            epochs=epochs,
        )


@dataclass(frozen=True)
class PackedPlan:
    """What a training on a packed arm comes to: no estimate, these are its numbers."""

    plan: TrainingPlan
    rows: int
    """Of the arm."""
    text: TrainedText

    @classmethod
    def make(
        cls, root: Root, arm_id: str, training: Training, seed: int, vocab_size: int, epochs: int = 1
    ) -> "PackedPlan":
        """Plan a training on the packed rows of an arm, of which only the contents are read.

        Raises InputError when the arm is not packed so, and when the budget exceeds the rows or does not fill one batch.
        """
        name = ArmFolder(arm_id).packed(training.sequence_length, training.packing)
        facts = root.manifest(name).facts
        rows = facts["rows"]
        shape, budget = ModelShape.of(training, vocab_size), budget_tokens(training, vocab_size)
        plan = plan_training(shape, budget, training.batch_tokens, rows, epochs)
        chosen = choose_rows(rows, plan.tokens // training.sequence_length, training, seed, epochs=epochs)
        contents = read_contents(root.file(name, CONTENTS).parent)
        return cls(plan, rows, TrainedText.of(contents, chosen, facts["bytes"], epochs))

    def to_facts(self) -> dict[str, int | float | None]:
        """As the plan shows them, by the names of a result's facts."""
        return {
            "rows": self.rows,
            "steps": self.plan.iterations,
            "trained_tokens": self.plan.tokens,
            "tokens_per_parameter": self.plan.ratio,
            **asdict(self.text),
        }


def _mean(scores: np.ndarray) -> float | None:
    rated = scores[np.isfinite(scores)]
    return float(rated.mean(dtype=np.float64)) if len(rated) else None
