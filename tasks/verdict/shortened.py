"""Runs of the better arm that really stop where its curves say that it had got as far as the other arm: do they?"""

from collections.abc import Sequence

from tasks.errors import InputError
from tasks.records.layout import RunFolder
from tasks.records.verdict import Comparison, ShorterRuns, Verdict
from tasks.spec import Score
from tasks.store.root import Root
from tasks.verdict.judge import judge
from tasks.verdict.looks import said
from tasks.verdict.planning import BESIDE_BYTES


def check_savings(
    root: Root, verdict: Verdict, pair: Comparison, runs: Sequence[str], strata_by: Score | None = None
) -> Verdict:
    """The verdict with what `runs`, the better arm's on `pair.tokens_saved.budget` tokens, say against those of the other arm.

    `strata_by`: as the verdict was judged by.

    Raises InputError when the pair saves no tokens or the runs have another budget, and as `judge` does.
    """
    budget = pair.tokens_saved.budget
    if budget is None or pair.better is None:
        raise InputError(
            f"The verdict {verdict.name} saves no tokens between {pair.a} and {pair.b}: there is nothing to check."
        )
    arms = {arm.label: arm.runs for arm in verdict.arms}
    other = pair.other(pair.better)
    found = judge(
        root,
        verdict.name,
        {pair.better: runs, other: arms[other]},
        allow=[*verdict.matched.allowed, *BESIDE_BYTES],
        target=verdict.target,
        pairing=verdict.pairing,
        control=verdict.control,
        strata_by=strata_by,
        level=pair.level,
    )
    if found.tokens != budget:
        raise InputError(
            f"The runs trained on {found.tokens:,} tokens, but the savings are checked on {budget:,}: train runs on that budget."
        )
    (against,) = found.comparisons
    whole = root.manifest(RunFolder(arms[pair.better][0]).result).facts["tokens"]
    interval = against.model_dump(include={"difference", "low", "high", "p"})
    checked = ShorterRuns(saved=1 - budget / whole, runs=tuple(runs), **interval)
    saved = pair.tokens_saved.model_copy(update={"checked": checked})
    pairs = (each.model_copy(update={"tokens_saved": saved}) if each == pair else each for each in verdict.comparisons)
    return said(verdict.model_copy(update={"comparisons": tuple(pairs)}))
