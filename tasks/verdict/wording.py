"""A comparison's numbers as the one sentence that people will repeat: so it claims no more than they carry."""

import math

from tasks.records.verdict import Comparison


def sentence(pair: Comparison) -> str:
    """The verdict on one pair of arms."""
    if pair.conclusion == "better":
        amount = _with_interval(abs(pair.difference), pair)
        return f"{pair.lower} is better than {pair.higher} by {amount} bits per byte{pair.on}{_equivalent(pair)}."
    if pair.conclusion == "one seed":
        return f"{_one_seed(pair)} What another seed would say is not known: train at least 2 seeds an arm."
    seen = f"{pair.a} and {pair.b} are not distinguishable{pair.on}: the difference is {_signed(pair)} bits per byte"
    return f"{seen}. {_outlook(pair)}"


def with_error(value: float, error: float) -> str:
    """0.0123 ± 0.0045: the error with two significant digits, the value with as many decimals."""
    if not math.isfinite(error) or error <= 0:
        return f"{value:.4f}"
    decimals = min(8, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _with_interval(value: float, pair: Comparison) -> str:
    low, high = pair.low, pair.high
    return with_error(value, math.nan if low is None or high is None else (high - low) / 2)


def _signed(pair: Comparison) -> str:
    return _with_interval(pair.difference, pair).replace("-", "−")


def _equivalent(pair: Comparison) -> str:
    saved = pair.tokens_saved
    if saved.estimate is None:
        return ""
    low, high = ("?" if end is None else f"{100 * end:.0f}" for end in (saved.low, saved.high))
    return (
        f" (equivalent to at least {100 * saved.estimate:.0f} % fewer tokens by the measured loss curve; "
        f"{low} to {high} % over the interval)"
    )


def _one_seed(pair: Comparison) -> str:
    where = pair.on or " on new documents"
    if not pair.excludes_zero:
        return f"One seed each: the two models are not distinguishable{where} ({_signed(pair)} bits per byte)."
    amount = _with_interval(abs(pair.difference), pair)
    return f"One seed each: the model of {pair.lower} spends {amount} bits per byte less than that of {pair.higher}{where}."


def _outlook(pair: Comparison) -> str:
    """What more seeds would show, with 80 % power."""
    if pair.seeds_needed is not None:
        needed = pair.seeds_needed
        shown = f"{needed.difference:.2g}, as large as the one seen,"
        return f"{_more(needed.seeds - pair.seeds)} an arm would tell a difference of {shown} 4 times in 5."
    further = [plan for plan in pair.detectable if plan.seeds > pair.seeds]
    if not further:
        return "Nothing is known of how more seeds would help."
    plan = further[min(1, len(further) - 1)]
    more = _more(plan.seeds - pair.seeds)
    return f"{more} an arm would tell a difference of {plan.difference:.2g} bits per byte 4 times in 5."


def _more(count: int) -> str:
    return f"{count} more seed{'s' if count > 1 else ''}"
