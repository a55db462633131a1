"""Before anything is trained: which depth, tokens and replicates can show an effect, and what that costs.

What a comparison can show depends on how far replicates of one run scatter, which is known only for settings that were run: those in the
ledger, else those of `MEASURED`. So a design is one of these settings with a number of replicates; nothing is interpolated. Of the
designs that show the effect for the money, the one with the largest model is proposed, because it is closest to what matters.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.errors import InputError
from tasks.records.cost import CostEstimate, estimate_cost
from tasks.records.ledger import LedgerEntry
from tasks.records.stopping import MOST_REPLICATES
from tasks.spec import Recipe, Training
from tasks.verdict.planning import smallest_difference, spread_between_seeds

BEYOND = 1 << 20
"""The search for the number of replicates stops here."""


@dataclass(frozen=True)
class KnownSpread:
    """How far replicates of a training scatter: variance of bits per byte between them, and its degrees of freedom."""

    training: Training
    variance: float
    freedom: int
    source: str


@dataclass(frozen=True)
class Design:
    """A setting with replicates: what it shows 4 times in 5, what it costs, and what the effect that was asked for would take."""

    depth: int
    recipe: Recipe
    replicates: int
    """Of each arm."""
    shows: float | None
    """The smallest difference that is shown with a power of 80 %, bits per byte; None with one replicate or none."""
    cost: CostEstimate
    """Of all runs."""
    reaches: bool
    """Whether it shows the effect."""
    needed: int | None
    """Replicates of each arm that show the effect, whatever they cost; None if hardly any number does."""
    needed_dollars: float | None
    deviation: float
    """Standard deviation between replicates, bits per byte."""
    freedom: int
    source: str
    """Where that is known from."""

    @property
    def tokens(self) -> int:
        """Trained tokens of a run."""
        return self.cost.tokens


def _measured(depth: int, deviation: float, runs: int) -> KnownSpread:
    training = Training(depth=depth, recipe="quiet", tokens=20_054_016, window_pattern="L", batch_tokens=131_072)
    return KnownSpread(training, deviation**2, runs - 1, f"{runs} seeds, benchmarks/verdict/noise.md")


MEASURED = (_measured(6, 0.0193, 10), _measured(8, 0.0145, 4), _measured(12, 0.0023, 4))
"""One random arm on one H200 under the quiet recipe; only the initial weights are redrawn."""


def known_spreads(ledger: Sequence[LedgerEntry]) -> list[KnownSpread]:
    """Those of the ledger's finished runs, one for each depth and budget; those of the table where the ledger has none."""
    settings: dict[tuple[str, str, str, int, int], Training] = {}
    for entry in ledger:
        if entry.state == "completed" and entry.tokens:
            training = entry.experiment.training.model_copy(update={"tokens": entry.tokens})
            kind = (training.engine, training.precision, training.recipe, training.depth, entry.tokens)
            settings.setdefault(kind, training)
    found = [
        KnownSpread(training, *spread, source="seeds of own runs")
        for training in settings.values()
        if (spread := spread_between_seeds(ledger, training)) and spread[0] > 0
    ]
    return found or list(MEASURED)


def propose(
    effect: float,
    dollars: float,
    ledger: Sequence[LedgerEntry] = (),
    *,
    arms: int = 2,
    dollars_per_gpu_hour: float = 3.0,
    device: str | None = None,
) -> list[Design]:
    """What each known setting can show of `effect` (bits per byte) for `dollars` in all, the proposed one first.

    Runs on a CPU say nothing about a GPU, nor the other way round. Replicates are as few as show the effect, and no more than
    `dollars` pay for or `MOST_REPLICATES`. Raises InputError when the effect or the dollars are not above 0, when the price is
    below 0, or when no setting's speed is known on the device.
    """
    for name, value in (("effect", effect), ("budget in dollars", dollars)):
        if not 0 < value < math.inf:  # nan is neither
            raise InputError(f"The {name} is {value:g}: give a number above 0.")
    if not 0 <= dollars_per_gpu_hour < math.inf:
        raise InputError(f"The price of a GPU hour is {dollars_per_gpu_hour:g} dollars: give 0 or more.")
    designs = []
    for known in known_spreads([entry for entry in ledger if (entry.device == "cpu") == (device == "cpu")]):
        training = known.training.model_copy(update={"dollars_per_gpu_hour": dollars_per_gpu_hour})

        def cost(replicates: int, training: Training = training) -> CostEstimate:
            label = f"{arms} arms x {replicates} replicates, d{training.depth}"
            runs = arms * replicates
            return estimate_cost(training, training.tokens or 0, runs=runs, label=label, ledger=ledger, device=device)

        if cost(1).dollars is not None:
            designs.append(_design(known, effect, dollars, arms, cost))
    if not designs:
        raise InputError(
            f"No run on {device!r} was measured, so its cost is unknown: train one there, or name another device."
        )
    reaching = sorted((each for each in designs if each.reaches), key=lambda each: (-each.depth, -each.tokens))
    others = sorted((each for each in designs if not each.reaches), key=lambda each: each.shows or float("inf"))
    return reaching + others


def say(design: Design, effect: float, dollars: float, arms: int = 2) -> str:
    """The proposed design in a sentence or two."""
    model = f"depth {design.depth} ({design.recipe}) on {design.tokens:,} tokens"
    scatter = f"replicates scatter by {design.deviation:.2g} bits per byte ({design.source}, {design.freedom} degrees of freedom)"
    aside = "The holdout's own error comes on top, and a first look at the real runs corrects the scatter."
    shows = "" if design.shows is None else f", which show a difference of {design.shows:.2g} 4 times in 5"
    plan = f"{arms} arms x {design.replicates} replicates at {model} for {design.cost.dollars or 0:.2f} dollars{shows}: {scatter}."
    if design.reaches:
        return f"Train {plan} {aside}"
    least = (
        ""
        if design.needed is None
        else f" It would take {design.needed:,} replicates an arm, {design.needed_dollars:,.0f} dollars."
    )
    return f"No known setting shows {effect:g} for {dollars:g} dollars with at most {MOST_REPLICATES} replicates. The closest: {plan}{least} {aside}"


def _design(
    known: KnownSpread, effect: float, dollars: float, arms: int, cost: Callable[[int], CostEstimate]
) -> Design:
    each = cost(1).dollars or 0.0
    affordable = min(MOST_REPLICATES, int(dollars / each)) if each else MOST_REPLICATES
    needed = _fewest(known.variance, effect, arms)
    replicates = min(affordable, needed or affordable)
    shown = smallest_difference(known.variance, replicates, arms) if replicates > 1 else None
    return Design(
        depth=known.training.depth,
        recipe=known.training.recipe,
        replicates=replicates,
        shows=shown,
        cost=cost(replicates),
        reaches=shown is not None and shown <= effect,
        needed=needed,
        needed_dollars=None if needed is None else each * needed,
        deviation=known.variance**0.5,
        freedom=known.freedom,
        source=known.source,
    )


def _fewest(variance: float, effect: float, arms: int) -> int | None:
    """The fewest replicates an arm that show the effect, by bisection. From 3 on, what they show falls with their number."""
    low, high = 1, 2
    while smallest_difference(variance, high, arms) > effect:
        low, high = high, 2 * high
        if high > BEYOND:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if smallest_difference(variance, middle, arms) <= effect else (middle, high)
    return high
