"""A comparison's numbers as the one sentence that people will repeat: so it claims no more than they carry."""

import math

from tasks.records.registration import Registered
from tasks.records.verdict import (
    OUTSIDE,
    QUESTIONS,
    ArmScores,
    Comparison,
    Control,
    Target,
    TokensSaved,
    Weakness,
    rough,
)
from tasks.verdict.target import HALVES

WARNINGS: dict[Weakness, str] = {
    "two seeds": "An arm has only two seeds: the interval is wide, and of intervals of 95 % up to 7 % miss if arms scatter very unlike.",
    "opposed seeds": "Seeds that raise one arm lower the other, so the interval is too narrow: pair by seed.",
    "few clusters": "The documents come from fewer than 20 blocks, so few of them can decide.",
    "single documents": "The holdout has too few blocks, so documents count as independent: if neighbors are alike, the interval is too narrow.",
    "long documents": "Few long documents hold most bytes: if arms differ by length, the interval misses more often than it says.",
}

OF_QUESTIONS: dict[Weakness, str] = {
    "few clusters": "The questions are of fewer than 20 tasks, so few of them can decide.",
    "single documents": "The questions have too few tasks, so each counts as independent: if those of a task are alike, the interval is too narrow.",
}
"""The same where questions decide."""

DECIDES: dict[str, tuple[str, str]] = {
    "all": ("", "Documents of the pool decide, which favors the arm that resembles the pool."),
    "lower half": (
        " on the worse-rated half of the holdout",
        "The worse-rated half of the pool's documents decides, which favors the arm that resembles it.",
    ),
    "upper half": (
        " on the better-rated half of the holdout",
        "The better-rated half of the pool's documents decides, which favors the arm that resembles it.",
    ),
}
"""Targets on the holdout: how a finding names them, and what it means that they decide."""
ELSEWHERE = {
    "all": "Documents of data.holdout, from outside the pool, decide, which favors the arm that resembles them.",
    "lower half": "The worse-rated half of data.holdout's documents, from outside the pool, decides, which favors the arm that resembles it.",
    "upper half": "The better-rated half of data.holdout's documents, from outside the pool, decides, which favors the arm that resembles it.",
}
"""What it means where the holdout was not taken from the pool."""
HARDLY = 0.8
"""More seeds hardly help if they leave the difference that can be told above this part of what it is now."""
NAMED = 3
"""Parts of the holdout that a sentence names for each arm."""
MANY_TIES = 0.05
"""The part of an arm that chance drew from equal scores, from which on the verdict says so."""
UNEQUAL_TEXT = 0.01
"""Difference between the parts of two arms' text that were trained on, from which on the verdict says so."""


def worded(
    pair: Comparison, a: ArmScores, b: ArmScores, control: Control | None = None, *, from_outside: bool = False
) -> Comparison:
    """The pair with its sentence: the verdict, what its interval covers, and what may be wrong with it.

    `from_outside`: whether the holdout is not of the pool.
    """
    weak = WARNINGS | OF_QUESTIONS if _by_questions(pair.target) else WARNINGS
    said = pair.model_copy(
        update={"sentence": " ".join([_finding(pair), *_clean(pair), *_checked(pair)]), "caveats": ()}
    )
    warnings, decides = [weak[weakness] for weakness in pair.warnings], _decides(pair.target, from_outside)
    said = _adding(said, decides, *_halves(pair), *_accuracy(pair), *_covers(pair), *warnings, *_control(pair, control))
    return _with_columns(with_text(with_draws(said, a, b), a, b))


def _adding(pair: Comparison, *caveats: str) -> Comparison:
    """The pair with more caveats, each a sentence."""
    more = {"sentence": " ".join([pair.sentence, *caveats]), "caveats": (*pair.caveats, *caveats)}
    return pair.model_copy(update=more)


def _control(pair: Comparison, control: Control | None) -> list[str]:
    """That arms are equal on purpose, and what it means if they seem to differ."""
    if control is None:
        return []
    equal = "A control: the arms are equal on purpose"
    if not pair.better:
        return [f"{equal}."]
    return [f"{equal}, so this is a false alarm, as {100 * (1 - pair.level):.2g} % of such intervals are, or a fault."]


def on(target: Target) -> str:
    """The target as a finding names it, with a space before; "" for all documents."""
    if target in DECIDES:
        return DECIDES[target][0]
    if _by_questions(target):
        return f" on the right answers to the questions {target.removeprefix(QUESTIONS)}"
    return f" on the texts {target.removeprefix(OUTSIDE)}"


def _by_questions(target: Target) -> bool:
    return target.startswith(QUESTIONS)


def _decides(target: Target, from_outside: bool) -> str:
    if from_outside and target in ELSEWHERE:
        return ELSEWHERE[target]
    if target in DECIDES:
        return DECIDES[target][1]
    if _by_questions(target):
        return f"The questions {target.removeprefix(QUESTIONS)} decide, by the bits of their right answers."
    return f"The texts {target.removeprefix(OUTSIDE)}, from outside the pool, decide, which favors the arm that resembles them."


def _accuracy(pair: Comparison) -> list[str]:
    """What the accuracy says, where questions decide and have choices."""
    asked = next((row for row in pair.questions if QUESTIONS + row.label == pair.target), None)
    if asked is None or asked.accuracy is None:
        return []
    found = asked.accuracy
    low, high = (None if end is None else 100 * end for end in (found.low, found.high))
    apart = with_interval(100 * found.difference, low, high, "+")
    return [
        f"Of {asked.choices} with choices, {pair.a} answers {100 * found.a:.1f} % right, {pair.b} {100 * found.b:.1f} %: a difference of {apart} "
        "points, which decides nothing."
    ]


def _finding(pair: Comparison) -> str:
    now = f"by an earlier look; now {_signed(pair)}"
    if pair.better:
        better = f"{pair.better} is better than {pair.other(pair.better)}"
        if pair.better != pair.lower or not pair.excludes_zero:
            return f"{better}{pair.on} {now} bits per byte{_equivalent(pair)}."
        return f"{better} by {_amount(pair)} bits per byte{pair.on}{_equivalent(pair)}."
    if pair.conclusion == "equivalent":
        within = f"within {pair.margin:g} bits per byte{pair.on}"
        if pair.margin and not max(abs(pair.low or 0.0), abs(pair.high or 0.0)) < pair.margin:
            return f"{pair.a} and {pair.b} are equivalent {within} {now}."
        return f"{pair.a} and {pair.b} are equivalent {within}: {_signed(pair)}."
    if pair.conclusion == "one seed":
        return f"{_one_seed(pair)} What other seeds would say is not known: train at least 2 seeds an arm."
    seen = f"{pair.a} and {pair.b} are not distinguishable{pair.on}: {_signed(pair)} bits per byte"
    return f"{seen}. {_outlook(pair)}"


def _clean(pair: Comparison) -> list[str]:
    """What is found without the documents that have near copies in arms, if any have."""
    clean = pair.clean
    if clean is None or not clean.left_out:
        return []
    where = " and ".join(f"{count} in {label}" for label, count in clean.leaked.items())
    where = f"of the whole holdout {where}" if pair.target in HALVES else where
    total = clean.documents + clean.left_out
    what = "questions" if _by_questions(pair.target) else "documents"
    without = f"Without the {clean.left_out} of {total} {what} that have near copies in the arms ({where})"
    if clean.low is None or clean.difference is None:
        return [f"{without}, too few are left to judge."]
    if not clean.excludes_zero:
        shown = _minus(pair, clean.difference, clean.low, clean.high)
        return [f"{without}, the arms are not distinguishable: {shown} bits per byte."]
    better = pair.a if clean.difference < 0 else pair.b
    same = " too," if better == pair.better else ""
    return [f"{without}, {better} is better{same} by {_size(clean.difference, clean.low, clean.high)} bits per byte."]


def _halves(pair: Comparison) -> list[str]:
    """That one arm is better on the better-rated half and the other on the worse-rated one, where both stand out: all documents together hide it."""
    halves = [row for row in pair.strata if row.kind == "half" and row.stands_out]
    if (
        pair.target != "all"
        or not pair.covers_seeds
        or len(halves) != 2
        or halves[0].difference * halves[1].difference > 0
    ):
        return []
    said = [
        f"{pair.a if row.difference < 0 else pair.b} is better on the {row.label}, {with_interval(row.difference, row.band_low, row.band_high, '+')}"
        for row in halves
    ]
    return [f"The halves disagree: {', and '.join(said)}. These bands hold for all parts at once, and decide nothing."]


def _with_columns(pair: Comparison) -> Comparison:
    """The pair with a sentence more on which parts of the holdout stand out, by the columns that were asked for."""
    parts = [row for row in pair.strata if row.column is not None]
    if not parts or not pair.covers_seeds:
        return pair
    by = " and ".join(dict.fromkeys(str(row.column) for row in parts))
    found = []
    for better, sign in ((pair.a, -1), (pair.b, 1)):
        out = sorted(
            (row for row in parts if row.stands_out and row.difference * sign > 0), key=lambda row: row.p or 0.0
        )
        named = [
            f"{row.label} ({with_interval(row.difference, row.band_low, row.band_high, '+')})" for row in out[:NAMED]
        ]
        more = [f"{len(out) - NAMED} more"] * (len(out) > NAMED)
        found += [f"{better} is better on {', '.join([*named, *more])}"] * bool(out)
    said = f"No part of the holdout by {by} stands out."
    if found:
        said = f"Of parts of the holdout by {by}, {'; '.join(found)}: by bands that hold for all parts at once, and decide nothing."
    return _adding(pair, said)


def with_text(pair: Comparison, a: ArmScores, b: ArmScores) -> Comparison:
    """The pair with a sentence more if its arms trained on unequal parts of their text or read it unequally often, which the difference then
    includes."""
    if a.epochs is not None and b.epochs is not None and a.epochs != b.epochs:
        often = ", ".join(f"{arm.label} {arm.epochs:g} times" for arm in (a, b)).replace(" 1 times", " once")
        pair = _adding(pair, f"Their text was read unequally often: {often}.")
    if a.text_share is None or b.text_share is None or abs(a.text_share - b.text_share) < UNEQUAL_TEXT:
        return pair
    parts = " and ".join(
        f"{100 * arm.text_share:.1f} % of that of {arm.label}" for arm in (a, b) if arm.text_share is not None
    )
    return _adding(pair, f"Unequal parts of their text were trained on: {parts}.")


def with_draws(pair: Comparison, a: ArmScores, b: ArmScores) -> Comparison:
    """The pair with a sentence more on draws of random arms that the interval covers, or does not, and on what all runs share."""
    if not pair.covers_seeds:
        return pair
    shared = [] if a.redrawn is None or "init" in a.redrawn else ["All runs have the same initial weights."]
    more = [f"The interval is for new draws of {arm.label} too." for arm in (a, b) if arm.draws]
    more += [
        f"The interval is not for other draws of {arm.label}: the runs are all on one."
        for arm in (a, b)
        if arm.at_random and not arm.draws
    ]
    more += [
        f"Of the documents of {arm.label}, {100 * arm.drawn_of_ties:.0f} % were drawn, once, from those with the score at its cut-off."
        for arm in (a, b)
        if arm.drawn_of_ties is not None and arm.drawn_of_ties >= MANY_TIES
    ]
    return _adding(pair, *more, *shared)


def with_looks(pair: Comparison, registered: Registered, error: float, fewest: int) -> Comparison:
    """The pair with a sentence more on the looks that were taken, on what was said too late, and on replicates that are not judged.

    `error`: of all looks together. `fewest`: runs of the arm that has fewest.
    """
    counts, plan, more = {look.replicates for look in registered.looks}, registered.newest, []
    if pair.decision is not None and plan.stop is not None:
        end = "Undecided" if pair.decision == "undecided" else "Goes on" if pair.decision == "go on" else "Decided"
        more.append(
            f"{end} at look {sum(count <= pair.seeds for count in counts)} of at most {len(plan.stop.looks)}, with {pair.seeds} of at most {plan.stop.max_replicates} "
            "replicates an arm."
        )
    if plan.stop is None and fewest < plan.replicates:
        more.append(
            f"Of {plan.replicates} replicates an arm that were registered, {fewest} are judged: had they been chosen by their scores, the "
            "interval would not hold."
        )
    taken = len({(look.asked, frozenset(look.runs)) for look in registered.all_looks})
    if error > 1 - registered.plan.level:
        names = ", ".join(registered.elsewhere)
        under = f", under other names or with other arms too ({names})" if names else ""
        more.append(
            f"Replicates, rules or targets were added after a look{under}: over all {taken} looks, up to {100 * error:.2g} % of equal arms are "
            "told apart."
        )
    elif registered.changes and any(change.looks_before for change, _ in registered.changes):
        more.append("The plan was changed after a look.")
    return _adding(pair, *more)


def with_interval(value: float, low: float | None, high: float | None, sign: str = "-") -> str:
    """0.0240 (0.0008 to 0.0504): three digits of the interval's half width; `sign="+"` shows both signs. Without an interval four decimals,
    of what is smaller two digits.

    The ends stand by themselves, because an interval need not be symmetric about its estimate.
    """
    if low is None or high is None:
        small = 0 < abs(value) < 1e-4  # 0.0000 would say that there is none
        decimals = min(8, 1 - math.floor(math.log10(abs(value)))) if small else 4
        return f"{value:{sign}z.{decimals}f}".replace("-", "−")
    width = (high - low) / 2
    decimals = min(8, max(0, 2 - math.floor(math.log10(width)))) if width > 0 else 4
    shown, first, last = (f"{number:{sign}z.{decimals}f}".replace("-", "−") for number in (value, low, high))
    return f"{shown} ({first} to {last})"


def _amount(pair: Comparison) -> str:
    """The size of a difference whose interval excludes 0, in favour of the better arm."""
    return _size(pair.difference, pair.low, pair.high)


def _size(difference: float, low: float | None, high: float | None) -> str:
    """A difference whose interval excludes 0, without its sign."""
    if low is None or high is None:
        return with_interval(abs(difference), None, None)
    low, high = sorted((abs(low), abs(high)))
    return with_interval(abs(difference), low, high)


def _signed(pair: Comparison) -> str:
    return _minus(pair, pair.difference, pair.low, pair.high)


def _minus(pair: Comparison, difference: float, low: float | None, high: float | None) -> str:
    return f"the difference, {pair.a} minus {pair.b}, is {with_interval(difference, low, high, '+')}"


def _equivalent(pair: Comparison) -> str:
    saved = pair.tokens_saved
    if saved.estimate is None:
        return ""
    low, high = ("?" if end is None else f"{100 * end:.0f}" for end in (saved.low, saved.high))
    return (
        f" (equivalent to at least {100 * saved.estimate:.0f} % fewer tokens by the measured loss curves, interval {low} to "
        f"{high} %, {_test(saved)} by shorter runs)"
    )


def _test(saved: TokensSaved) -> str:
    """What shorter runs did to the savings, in a word or three."""
    if saved.checked is None:
        return "not checked"
    return {"open": "neither confirmed nor refuted"}.get(saved.checked.conclusion, saved.checked.conclusion)


def _checked(pair: Comparison) -> list[str]:
    """What runs of the better arm say that really stopped at the tokens it saved."""
    found = pair.tokens_saved.checked
    if found is None or pair.better is None:
        return []
    other = pair.other(pair.better)
    if found.conclusion == "open":
        apart = with_interval(found.difference, found.low, found.high, "+")
        ends = (
            f"are not told apart from those of {other}: the difference is {apart} bits per byte, which settles nothing."
        )
    else:
        low, high = sorted((abs(found.low or 0), abs(found.high or 0)))
        side = {"confirmed": "below", "refuted": "above"}[found.conclusion]
        by = with_interval(abs(found.difference), low, high)
        ends = f"end {by} bits per byte {side} those of {other}: the savings are {found.conclusion}."
    return [f"Runs of {pair.better} on {100 * found.saved:.3g} % fewer tokens {ends}"]


def _one_seed(pair: Comparison) -> str:
    where = pair.on or " on new documents"
    if not pair.excludes_zero:
        return f"One seed in an arm: the models are not distinguishable{where} ({_signed(pair)} bits per byte)."
    amount = _amount(pair)
    return f"One seed in an arm: models of {pair.lower} spend {amount} bits per byte less than those of {pair.other(pair.lower)}{where}."


def _covers(pair: Comparison) -> list[str]:
    if pair.low is None or not pair.covers_seeds:
        return []
    pairing = pair.pairing
    gain = (
        f", which made the interval {pair.pairing_gain:.2g} times as wide"
        if pairing.paired and pair.pairing_gain
        else ""
    )
    known = "" if pairing.correlation is None else f" (correlation {pairing.correlation:.2f})".replace("-", "−")
    paired = [f"{'Paired' if pairing.paired else 'Not paired'} by seed{known}{gain}."] if pairing.shared else []
    where = on(pair.target).removeprefix(" on ") or "the holdout" if pair.target in DECIDES else "these texts"
    like = f"documents like those of {where}"
    like = "tasks like those of these questions" if _by_questions(pair.target) else like
    return [f"The {100 * pair.level:.3g} % interval is for new {like} and for new seeds.", *paired]


def _outlook(pair: Comparison) -> str:
    """What more seeds would show, with 80 % power."""
    if pair.seeds_needed is not None:
        needed = pair.seeds_needed
        shown = f"{needed.difference:.2g}, as large as the one seen,"
        return f"{_more(needed.seeds - pair.seeds)} would show a difference of {shown} 4 times in 5."
    further = [plan for plan in pair.detectable if plan.seeds > pair.seeds]
    if not further:
        return "Nothing is known of how more seeds would help."
    plan = further[min(1, len(further) - 1)]
    if plan.difference > HARDLY * pair.detectable[0].difference:
        what, blocks = ("questions", "tasks") if _by_questions(pair.target) else ("documents", "blocks of documents")
        return (
            f"More seeds would hardly help, because the {what}' own error outweighs theirs ({rough(pair.errors.documents)} against "
            f"{rough(pair.errors.seeds)}, {pair.clusters} {blocks}): score on more {what}."
        )
    more = _more(plan.seeds - pair.seeds)
    return f"{more} would show a difference of {plan.difference:.2g} bits per byte 4 times in 5."


def _more(count: int) -> str:
    return f"{count} more seeds per arm" if count > 1 else "One more seed per arm"
