"""Do a ladder's prediction intervals cover what they predict? `python -m benchmarks.verdict ladder`

Every case simulates ladders whose law is known: differences at the compute of real depths, off their law by chance (between scales), measured
with a few replicates whose error is estimated from as few. Covered is the difference at the target, which is off the law as well. `predict` is
the function that real ladders use.

`python -m benchmarks.verdict ladder runs FOLDER` does the same with real runs on one GPU, from the text that `noise pack` wrote.
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

LAWS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "equal": lambda x: 0 * x,
    "linear": lambda x: START - SLOPE * x,
    "linear, sign changes": lambda x: SLOPE * x - START / 2,
    "power law, b = 0.08": lambda x: 1.5 * START * np.exp(-0.08 * x),
    "power law, b = 0.15": lambda x: 1.5 * START * np.exp(-0.15 * x),
    "power law, b = 0.3": lambda x: 1.5 * START * np.exp(-0.3 * x),
}
"""The difference by the logarithm of compute, 0 at the lowest scale."""
LADDERS = {"d4 to d12": ((4, 6, 8, 10, 12), 20), "d4 to d10": ((4, 6, 8, 10), 14), "d4 to d8": ((4, 6, 8), 10)}
BETWEEN = (0.001, 0.002, 0.004)
"""Standard deviations between scales, bits per byte."""


@dataclass(frozen=True)
class Case:
    """A law with its noise, seen at some depths."""

    law: str
    ladder: str
    between: float
    replicates: int = 3

    def covered(self, simulations: int) -> tuple[float, float]:
        """Percent of the intervals that hold the difference at the target, and their median width."""
        random = np.random.default_rng([SEED, *map(ord, f"{self}")])
        depths, target = LADDERS[self.ladder]
        compute = [flops(depth) for depth in depths]
        x = np.log(np.array([*compute, flops(target)]) / compute[0])
        true = LAWS[self.law](x) + self.between * random.standard_normal((simulations, len(x)))
        error = REPLICATE * np.exp(-0.2 * x[:-1]) * np.sqrt(2 / self.replicates)
        freedom = 2 * (self.replicates - 1)
        known = error * np.sqrt(random.chisquare(freedom, (simulations, len(error))) / freedom)
        seen = true[:, :-1] + error * random.standard_normal(known.shape)
        found = predict(compute, seen, known, flops(target))
        place = found.below(true[:, -1])
        low, high = found.interval()
        covered = np.abs(place - 0.5) <= LEVEL / 2
        return 100 * float(covered.mean()), float(np.median(high - low))


CASES = [Case(law, ladder, between) for law in LAWS for ladder in LADDERS for between in BETWEEN]
CASES += [Case("linear", "d4 to d12", 0.002, replicates) for replicates in (2, 8)]
SHORT = [Case(law, "d4 to d12", 0.002) for law in ("linear", "linear, sign changes", "power law, b = 0.15")]


def flops(depth: int) -> float:
    """Of a run at a depth, on the usual tokens."""
    shape = ModelShape.of_depth(depth)
    return float(flops_per_token(shape) * tokens_at(RULE, shape))


def table(cases: Sequence[Case], simulations: int) -> int:
    """Print what the intervals of each case cover; how many are out of bounds, beyond twice the error of the simulation."""
    print(f"seed {SEED}, {simulations:,} ladders a case, {100 * LEVEL:g} % intervals\n")
    print(
        "| law | ladder | between scales | replicates | covered | median width |\n| --- | --- | ---: | ---: | ---: | ---: |"
    )
    failed, slack = 0, 200 * float(np.sqrt(LEVEL * (1 - LEVEL) / simulations))
    for case in cases:
        covered, width = case.covered(simulations)
        failed += (bad := not BOUNDS[0] - slack <= covered <= BOUNDS[1] + slack)
        cells = f"{case.law} | {case.ladder} | {case.between:g} | {case.replicates} | {covered:.1f} % | {width:.4f}"
        print(f"| {cells} |{' OUT OF BOUNDS' if bad else ''}", flush=True)
    return failed


def main(
    simulations: Annotated[int, typer.Option(min=1, help="Simulated ladders of a case.")] = SIMULATIONS,
    short: Annotated[bool, typer.Option("--short", help="Three cases.")] = False,
) -> None:
    """Print what the intervals of simulated ladders cover; exit status 1 if that is not 85 to 95 %, beyond the simulation's error."""
    started = time.monotonic()
    failed = table(SHORT if short else CASES, simulations)
    print(f"\n{failed} out of bounds; {time.monotonic() - started:.0f} s")
    raise SystemExit(1 if failed else 0)
