"""Do a ladder's prediction intervals cover what they predict? `python -m benchmarks.verdict ladder`

Every case simulates ladders whose law is known: differences at the compute of real depths, off their law by chance (between scales), measured
with a few replicates whose error is estimated from as few. Covered is the difference at the target, which is off the law as well. `predict` is
the function that real ladders use.

A ladder does not know how far scales are off its law, so what has to hold is over all scatters, each as often: of all ladders, and of the fifth
whose rungs seem to be off the least, where an interval that takes rungs at their word covers half of what it says.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import typer

from tasks.records.scaling import ModelShape, flops_per_token, tokens_at
from tasks.records.sizes import RULE
from tasks.verdict.ladder import LEVEL, predict

SEED = 27
SIMULATIONS = 2_000
SLOPE, START = 0.003, 0.02
REPLICATE = 0.002
"""Standard deviation of a run at the lowest scale, bits per byte; it falls by a fifth with each unit of log compute."""
BOUNDS = (85.0, 95.0)
"""Percent, over all laws on a ladder."""
OF_A_LAW = (83.0, 100.0)
"""Of each."""
LOWEST = 5
"""A fifth: the ladders with the least scatter by their own estimate."""

LAWS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "equal": lambda x: 0 * x,
    "linear": lambda x: START - SLOPE * x,
    "linear, sign changes": lambda x: SLOPE * x - START / 2,
    "power law, b = 0.08": lambda x: 1.5 * START * np.exp(-0.08 * x),
    "power law, b = 0.15": lambda x: 1.5 * START * np.exp(-0.15 * x),
    "power law, b = 0.3": lambda x: 1.5 * START * np.exp(-0.3 * x),
    "linear, ten times": lambda x: 10 * (START - SLOPE * x),
}
"""The difference by the logarithm of compute, 0 at the lowest scale."""
TEN_TIMES = "linear, ten times"
"""Whose scales are ten times as far off, too."""
LADDERS = {"d4 to d12": ((4, 6, 8, 10, 12), 20), "d4 to d10": ((4, 6, 8, 10), 14), "d4 to d8": ((4, 6, 8), 10)}
BETWEEN = (0.001, 0.002, 0.004)
"""Standard deviations between scales, bits per byte: which of them it is, no ladder knows."""


@dataclass(frozen=True)
class Found:
    """What the intervals of N ladders hold: whether the difference at the target, their widths, and the scatter that they estimate, (N,) each."""

    covered: np.ndarray
    width: np.ndarray
    between: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Found"]) -> "Found":
        return cls(
            *(np.concatenate([getattr(part, name) for part in parts]) for name in ("covered", "width", "between"))
        )

    def percent(self) -> float:
        """Of the intervals that hold it."""
        return 100 * float(self.covered.mean())

    def percent_lowest(self) -> float:
        """The same of the fifth with the least scatter by its own estimate."""
        lowest = np.argsort(self.between, kind="stable")[: len(self.between) // LOWEST]
        return 100 * float(self.covered[lowest].mean())


@dataclass(frozen=True)
class Case:
    """A law with its noise, seen at some depths, with each of the scatters `BETWEEN`."""

    law: str
    ladder: str
    replicates: int = 3

    def found(self, simulations: int, seed: int = SEED) -> list[Found]:
        """What so many ladders of each scatter predict."""
        return [self._found(between, simulations, seed) for between in BETWEEN]

    def _found(self, between: float, simulations: int, seed: int) -> Found:
        random = np.random.default_rng([seed, *map(ord, f"{self} {between}")])
        depths, target = LADDERS[self.ladder]
        compute = [flops(depth) for depth in depths]
        x = np.log(np.array([*compute, flops(target)]) / compute[0])
        off = between * (10 if self.law == TEN_TIMES else 1)
        true = LAWS[self.law](x) + off * random.standard_normal((simulations, len(x)))
        error = REPLICATE * np.exp(-0.2 * x[:-1]) * np.sqrt(2 / self.replicates)
        freedom = 2 * (self.replicates - 1)
        known = error * np.sqrt(random.chisquare(freedom, (simulations, len(error))) / freedom)
        seen = true[:, :-1] + error * random.standard_normal(known.shape)
        found = predict(compute, seen, known, flops(target))
        low, high = found.interval()
        return Found((low <= true[:, -1]) & (true[:, -1] <= high), high - low, found.between)


CASES = [Case(law, ladder) for ladder in LADDERS for law in LAWS]
CASES += [Case("linear", "d4 to d12", replicates) for replicates in (2, 8)]
SHORT = [Case(law, "d4 to d10") for law in ("equal", "linear", "linear, sign changes", "power law, b = 0.15")]


def flops(depth: int) -> float:
    """Of a run at a depth, on the usual tokens."""
    shape = ModelShape.of_depth(depth)
    return float(flops_per_token(shape) * tokens_at(RULE, shape))


def table(cases: Sequence[Case], simulations: int, seed: int) -> int:
    """Print what the intervals of each case cover; how often that is out of bounds, beyond twice the error of the simulation.

    Both of all ladders and of the lowest fifth, the laws together have to be within `BOUNDS`, and each within `OF_A_LAW`.
    """
    print(f"seed {seed}, {simulations:,} ladders a case and scatter, {100 * LEVEL:g} % intervals\n")
    print(
        "| ladder | law | replicates | at each scatter | covered | lowest fifth of each | lowest fifth | median width |"
    )
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    failed, by_ladder = 0, dict[str, list[Found]]()
    for case in cases:
        parts = case.found(simulations, seed)
        failed += _row(f"{case.ladder} | {case.law} | {case.replicates}", parts, OF_A_LAW)
        if case.replicates == Case.replicates:
            by_ladder.setdefault(case.ladder, []).extend(parts)
    for ladder, parts in by_ladder.items():
        by_scatter = [Found.joined(parts[i :: len(BETWEEN)]) for i in range(len(BETWEEN))]
        failed += _row(f"{ladder} | **all** | {Case.replicates}", by_scatter, BOUNDS)
    return failed


def _row(head: str, parts: Sequence[Found], bounds: tuple[float, float]) -> bool:
    """Print a line of the table, of the ladders at each scatter; whether what they cover is out of bounds."""
    found = Found.joined(parts)
    each = " / ".join(f"{part.percent():.1f}" for part in parts)
    widths = " / ".join(f"{np.median(part.width):.4f}" for part in parts)
    values = {1: found.percent(), LOWEST: found.percent_lowest()}
    slack = {part: 200 * float(np.sqrt(LEVEL * (1 - LEVEL) * part / len(found.covered))) for part in values}
    bad = any(not bounds[0] - slack[part] <= value <= bounds[1] + slack[part] for part, value in values.items())
    lowest = " / ".join(f"{part.percent_lowest():.0f}" for part in parts)
    shown = f"{values[1]:.1f} % | {lowest} | {values[LOWEST]:.1f} %"
    print(f"| {head} | {each} | {shown} | {widths} |{' OUT OF BOUNDS' if bad else ''}", flush=True)
    return bad


def main(
    simulations: Annotated[int, typer.Option(min=1, help="Simulated ladders of a case.")] = SIMULATIONS,
    seed: Annotated[int, typer.Option(min=0, help="Of the simulations; with its default the laws were chosen.")] = SEED,
    short: Annotated[bool, typer.Option("--short", help="Four cases.")] = False,
) -> None:
    """Print what the intervals of simulated ladders cover; exit status 1 if it is out of bounds, beyond the simulation's error."""
    started = time.monotonic()
    failed = table(SHORT if short else CASES, simulations, seed)
    print(f"\n{failed} out of bounds; {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if failed else 0)
