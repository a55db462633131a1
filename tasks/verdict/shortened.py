"""Runs of the better arm that really stop where its curves say that it had got as far as the other arm: do they?"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tasks.errors import InputError
from tasks.records.verdict import Comparison, Verdict
from tasks.store.root import Root
from tasks.verdict.judge import judge
from tasks.verdict.planning import BESIDE_BYTES


@dataclass(frozen=True)
class ShortenedRuns:
    """The better arm on fewer tokens, compared with the other arm on all of them."""

    saved: float
    """Share of tokens (0 to 1) that the shorter runs did without."""
    comparison: Comparison
    """The shorter runs are its first arm."""

    @property
    def conclusion(self) -> Literal["confirmed", "refuted", "open"]:
        """confirmed: they end below the other arm's runs; refuted: above; open: not told apart."""
        if not self.comparison.excludes_zero:
            return "open"
        return "confirmed" if self.comparison.difference < 0 else "refuted"

    @property
    def sentence(self) -> str:
        pair = self.comparison
        found = {
            "confirmed": f"end below those of {pair.b}: the savings are confirmed",
            "refuted": f"end above those of {pair.b}: the savings are refuted",
            "open": f"are not told apart from those of {pair.b}, which neither confirms nor refutes the savings",
        }[self.conclusion]
        return f"Runs of {pair.a} on {100 * self.saved:.3g} % fewer tokens {found} ({pair.sentence})"


def compare_shortened(root: Root, verdict: Verdict, pair: Comparison, runs: Sequence[str]) -> ShortenedRuns:
    """Compare `runs`, the better arm's on `pair.tokens_saved.budget` tokens, with those of the other arm in the verdict.

    Raises InputError when the pair saves no tokens or the runs have another budget, and as `judge` does.
    """
    budget = pair.tokens_saved.budget
    if budget is None or pair.better is None:
        raise InputError(
            f"The verdict {verdict.name} saves no tokens between {pair.a} and {pair.b}: there is nothing to check."
        )
    arms = {arm.label: arm for arm in verdict.arms}
    found = judge(
        root,
        verdict.name,
        {pair.lower: runs, pair.higher: arms[pair.higher].runs},
        allow=[*verdict.matched.allowed, *BESIDE_BYTES],
        outside=verdict.outside,
        target=verdict.target,
        pairing=verdict.pairing,
        level=verdict.level,
    )
    if found.tokens != budget or verdict.tokens is None:
        raise InputError(
            f"The runs trained on {found.tokens:,} tokens, but the savings are checked on {budget:,}: train runs on these."
        )
    return ShortenedRuns(1 - budget / verdict.tokens, found.comparisons[0])
