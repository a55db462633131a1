"""An arm that mixes several selections of its pool: how large each part is, and what it takes beside the others."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from tasks.corpus.arm.selection import PartTaken, Selection, in_order
from tasks.errors import InputError
from tasks.spec import Arm, Part, Pool

Choose = Callable[[Arm, np.ndarray], Selection]
"""What an arm without parts takes, none of it from the document numbers given, uint32 (k,)."""
NONE = np.empty(0, np.uint32)


def mix(arm: Arm, pool: Pool, scores: np.ndarray, tokens: np.ndarray | None, choose: Choose) -> Selection:
    """What an arm with parts takes. `scores` (n,), `tokens` (n,): of the pool's documents.

    The arm is as large as it would be as a random one, in documents, or in tokens where it is sized by tokens. Each part takes its
    weight of that by its own selection. A document that several parts select counts for the first of them; the others take their
    next ones instead, so that the arm has its size and the parts have their weights. Raises InputError.
    """
    whole = choose(arm.model_copy(update={"parts": (), "select": "random"}), NONE)
    by_tokens = arm.sized_by_tokens and tokens is not None
    size = (arm.tokens or _tokens(tokens, whole.documents)) if by_tokens else len(whole.documents)
    shares = np.array([part.weight for part in arm.parts]) / sum(part.weight for part in arm.parts)
    amounts = np.diff(np.rint(np.concatenate([[0], np.cumsum(shares)]) * size).astype(np.int64))
    taken = NONE
    parts: list[PartTaken] = []
    for part, share, amount in zip(arm.parts, shares.tolist(), amounts.tolist(), strict=True):
        if not amount:
            raise InputError(
                f"The part {part.select} of the arm {arm.name} has {100 * share:.2g} % of {size:,} {'tokens' if by_tokens else 'documents'}, which is "
                "none: raise its weight, or the arm's share."
            )
        alone = _part(arm, part, amount, by_tokens)
        selection = choose(alone, NONE)
        again = int(np.isin(selection.documents, taken).sum())
        if again:
            selection = choose(alone, taken)
        parts.append(PartTaken(part.select, part.subset, share, len(selection.documents), again))
        taken = np.sort(np.concatenate([taken, selection.documents]))
    return replace(whole, documents=in_order(arm, pool, scores, taken), cut_off=None, parts=tuple(parts))


def _part(arm: Arm, part: Part, amount: int, by_tokens: bool) -> Arm:
    """A part as an arm of its own: `amount` documents, or tokens."""
    size = {"tokens": amount, "documents": None} if by_tokens else {"documents": amount, "tokens": None}
    chosen = {"select": part.select, "temperature": part.temperature, "subset": part.subset or arm.subset}
    return arm.model_copy(update={"parts": (), **chosen, **size})


def _tokens(tokens: np.ndarray | None, documents: np.ndarray) -> int:
    """Tokens of the documents, those without a count as the mean of the others."""
    counts = tokens[documents] if tokens is not None else NONE
    known = counts[counts >= 0]
    return round(float(known.mean()) * len(counts)) if len(known) else 0
