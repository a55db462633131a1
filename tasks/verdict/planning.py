"""Before arms are trained: the budget they share, and what a number of seeds can show."""

import json
import statistics
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal

from tasks.errors import InputError
from tasks.records.ledger import LedgerEntry
from tasks.records.packed import TrainedText
from tasks.records.scaling import WARMUP_STEPS
from tasks.spec import Training
from tasks.verdict.paired import detectable_difference, level_of_a_pair
from tasks.verdict.replicates import paired_by_seed

Budget = Literal["tokens", "bytes"]
"""What is equal between arms: trained tokens, or bytes of text."""
BESIDE_BYTES = ("training.tokens", "tokens", "steps")
"""What differs between arms of equal bytes, as paths for `allow`."""


def equal_budget(
    packed: Mapping[str, Mapping[str, int]],
    tokens: int | None,
    budget: Budget = "tokens",
    epochs: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, int]:
    """Trained tokens of each arm. `packed`: {arm: facts of its packed rows}; `tokens`: the budget, or None for the largest.

    The largest budget is every packed row of the arm that has the least of them, as often as its `epochs` (default: once). With
    "bytes", arms read equally much text instead: as many bytes as the arm with the least has in its tokens. Counts are whole rows.
    Raises InputError when the budget is more than an arm has or less than one row.
    """
    held = {label: facts["tokens_per_epoch"] * epochs.get(label, 1) for label, facts in packed.items()}
    smallest = min(held, key=lambda label: held[label])
    most = held[smallest]
    if tokens is not None and tokens > most:
        raise InputError(
            f"The budget is {tokens:,} tokens, but the arm {smallest} has only {most:,} in its packed rows: lower the budget, leave "
            "it empty, or raise the arm's share or epochs."
        )
    if budget == "tokens":
        return {label: tokens or most for label in packed}
    weight = {label: facts["bytes"] / facts["tokens"] for label, facts in packed.items()}
    bytes_read = min(weight[label] * (tokens or held[label]) for label in packed)
    length = {label: facts["sequence_length"] for label, facts in packed.items()}
    budgets = {label: int(bytes_read / weight[label]) // length[label] * length[label] for label in packed}
    if empty := [label for label, found in budgets.items() if not found]:
        raise InputError(
            f"The budget of {bytes_read:,.0f} bytes of text is less than one row of {empty[0]}: raise the budget, or the arms' shares."
        )
    return budgets


def what_is_read(label: str, text: TrainedText) -> str:
    """A sentence: how much of its text an arm trains on, and how good that is against the whole arm."""
    read = f"{label} trains on {text.trained_documents:,} documents, {100 * text.text_share:.1f} % of its text"
    if text.epochs > 1:
        read += f", {text.epochs} times"
    if text.mean_score is None or text.arm_mean_score is None:
        return f"{read}."
    return f"{read}, mean score {text.mean_score:.2f} (the arm's: {text.arm_mean_score:.2f})."


def what_steps_are_few(tokens: int, steps: int, sequence_length: int) -> list[str]:
    """A sentence if a budget of `tokens` makes too few `steps` to learn much, naming a batch that makes `WARMUP_STEPS`; else none."""
    if not 0 < steps < WARMUP_STEPS:
        return []
    rows = max(1, tokens // WARMUP_STEPS // sequence_length)
    batch = sequence_length << rows.bit_length() - 1
    if tokens // batch <= steps:
        return []
    return [
        f"A run has {steps} step{'s' if steps > 1 else ''}, in which a model learns little: batch_tokens: {batch:,} under train makes "
        f"{tokens // batch:,} of the same tokens."
    ]


def smallest_difference(variance: float, seeds: int, arms: int) -> float:
    """The difference that this many seeds an arm show 4 times in 5, if seeds do not correlate between arms.

    `variance`: of bits per byte between seeds.
    """
    paired = paired_by_seed("auto", range(seeds), range(seeds))
    variances = [2 * variance] if paired else [variance, variance]
    return detectable_difference(0.0, variances, seeds, level_of_a_pair(0.95, arms))


def spread_between_seeds(found: Sequence[LedgerEntry], training: Training) -> tuple[float, int] | None:
    """Variance of bits per byte between seeds in similar finished runs, and its degrees of freedom; None without such runs.

    Similar: same engine, recipe, depth and precision, and half to twice the tokens if `training` has a budget. Pooled over groups that
    differ in seeds alone, that of the run and that of the arm.
    """
    groups: dict[str, list[float]] = {}
    for entry in found:
        alike = all(getattr(entry, field) == getattr(training, field) for field in ("engine", "depth", "precision"))
        budget = training.tokens
        alike &= entry.experiment.training.recipe == training.recipe
        near = not budget or (entry.tokens is not None and budget / 2 <= entry.tokens <= 2 * budget)
        if entry.state == "completed" and entry.bpb is not None and alike and near:
            asked = entry.experiment.identity()
            asked["arm"].pop("seed")
            del asked["seed"]
            groups.setdefault(json.dumps([entry.pool_id, asked]), []).append(entry.bpb)
    repeated = [values for values in groups.values() if len(values) > 1]
    freedom = sum(len(values) - 1 for values in repeated)
    if not freedom:
        return None
    return sum(statistics.variance(values) * (len(values) - 1) for values in repeated) / freedom, freedom


def what_seeds_show(spread: tuple[float, int] | None, arms: int, seeds: int) -> str:
    """A sentence: the smallest difference that `seeds` seeds an arm can show, if seeds do not correlate between arms.

    `spread`: variance of bits per byte between seeds in earlier runs alike, and its degrees of freedom, if any is known.
    """
    if seeds < 2:
        return "One seed an arm makes no verdict: what another seed would have done stays unknown."
    if spread is None:
        return "How far a seed moves such a run is not known yet, so neither is what these seeds can show: the verdict will tell."
    variance, freedom = spread
    return (
        f"In runs alike a seed moved bits per byte by {variance**0.5:.2g} (standard deviation, {freedom} degrees of freedom): "
        f"{seeds} seeds an arm show a difference of {smallest_difference(variance, seeds, arms):.2g} 4 times in 5, the holdout's own error aside; fewer do if seeds move the arms alike."
    )
