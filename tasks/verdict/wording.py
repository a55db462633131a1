"""A comparison's numbers as the one sentence that people will repeat: so it claims no more than they carry."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def sentence(comparison: Mapping[str, Any]) -> str:
    """The verdict on one pair of arms; see `judge.comparison` for the fields."""
    a, b = comparison["a"], comparison["b"]
    amount = with_error(abs(comparison["difference"]), (comparison["high"] - comparison["low"]) / 2)
    if comparison["conclusion"] == "better":
        winner, loser = (a, b) if comparison["difference"] < 0 else (b, a)
        return f"{winner} is better than {loser} by {amount} bits per byte{comparison['on']}{_equivalent(comparison)}."
    if comparison["conclusion"] == "one seed":
        return (
            f"{_one_seed(comparison, amount)} What another seed would say is not known: train at least 2 seeds an arm."
        )
    seen = (
        f"{a} and {b} are not distinguishable{comparison['on']}: the difference is {_signed(comparison)} bits per byte"
    )
    return f"{seen}. {_outlook(comparison)}"


def with_error(value: float, error: float) -> str:
    """0.0123 ± 0.0045: the error with two significant digits, the value with as many decimals."""
    if not math.isfinite(error) or error <= 0:
        return f"{value:.4f}"
    decimals = min(8, max(0, 1 - math.floor(math.log10(error))))
    return f"{value:.{decimals}f} ± {error:.{decimals}f}"


def _signed(comparison: Mapping[str, Any]) -> str:
    text = with_error(comparison["difference"], (comparison["high"] - comparison["low"]) / 2)
    return text.replace("-", "−")


def _equivalent(comparison: Mapping[str, Any]) -> str:
    saved = comparison["tokens_saved"]
    if saved["estimate"] is None:
        return ""
    low, high = (f"{100 * saved[end]:.0f}" if saved[end] is not None else "?" for end in ("low", "high"))
    return (
        f" (equivalent to at least {100 * saved['estimate']:.0f} % fewer tokens by the measured loss curve; "
        f"{low} to {high} % over the interval)"
    )


def _one_seed(comparison: Mapping[str, Any], amount: str) -> str:
    a, b = comparison["a"], comparison["b"]
    if comparison["low"] <= 0 <= comparison["high"]:
        return f"One seed each: the two models are not distinguishable{comparison['on'] or ' on new documents'} ({_signed(comparison)} bits per byte)."
    winner, loser = (a, b) if comparison["difference"] < 0 else (b, a)
    return f"One seed each: the model of {winner} spends {amount} bits per byte less than that of {loser}{comparison['on'] or ' on new documents'}."


def _outlook(comparison: Mapping[str, Any]) -> str:
    """What more seeds would show, with 80 % power."""
    needed, plans = comparison["seeds_needed"], comparison["detectable"]
    if needed is not None:
        more = needed["seeds"] - comparison["seeds"]
        return f"{_more(more)} an arm would tell a difference of {needed['difference']:.2g}, as large as the one seen, 4 times in 5."
    further: Sequence[Mapping[str, Any]] = [plan for plan in plans if plan["seeds"] > comparison["seeds"]]
    if not further:
        return "Nothing is known of how more seeds would help."
    plan = further[min(1, len(further) - 1)]
    more = plan["seeds"] - comparison["seeds"]
    return f"{_more(more)} an arm would tell a difference of {plan['difference']:.2g} bits per byte 4 times in 5."


def _more(count: int) -> str:
    return f"{count} more seed{'s' if count > 1 else ''}"
