"""A ladder before and after its runs: a comparison at each depth, what they cost together, and what they predict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Annotated

import numpy as np
from pydantic import Field

from tasks.errors import InputError
from tasks.records import registration
from tasks.records.cost import CostEstimate, estimate_cost, total
from tasks.records.ladder import Backtest, Forecast, Ladder, LadderCost, Rung, Scale
from tasks.records.ledger import LedgerEntry
from tasks.records.scaling import ModelShape, flops_per_token, parameter_counts, tokens_at
from tasks.records.sizes import RULE
from tasks.records.verdict import Comparison, Verdict
from tasks.spec import Spec, Training
from tasks.spec.training import Depth
from tasks.store.artifact import code_version
from tasks.verdict.comparison import ComparisonSpec
from tasks.verdict.form import ComparisonForm
from tasks.verdict.ladder import FEWEST, LEVEL, band, predict

LONGEST_NAME = 41
POINTS = 25
"""Of a band."""
COVERS = (
    "Its interval holds for the mean of new replicates there and for new documents like those that decide, and includes how far a scale is off "
    "its law, if the difference goes on with compute as such laws do: not for another pool, recipe or ratio of tokens to parameters."
)
"""What is said of every prediction."""


class LadderDepths(Spec):
    """What only a ladder asks for, in a base of its own, because the fields of the last base come first in a form."""

    to: Depth = Field(20, description="Depth at which the difference is predicted. Nothing is trained there.")
    depths: Annotated[list[Depth], Field(min_length=FEWEST, max_length=16)] = Field(
        [4, 6, 8, 10, 12],
        description="Depths at which the arms are trained and compared, each on the same number of tokens a parameter: that of "
        f"train.tokens_per_parameter, or of train.tokens at train.depth, or {RULE:g}.",
    )


class LadderForm(ComparisonForm, LadderDepths):
    """The arms of a comparison at several depths, and the depth at which their difference is to be predicted."""

    most: Annotated[float, Field(gt=0, le=100)] = Field(
        0.2,
        description="The part of a direct comparison at the target, with as many replicates, that the ladder may cost.",
    )

    def ladder(self) -> "LadderSpec":
        """The ladder that is asked for. Raises InputError when depths, replicates or name do not make one."""
        depths = sorted(set(self.depths))
        if len(depths) < len(self.depths) or depths[-1] >= self.to:
            raise InputError(
                f"The depths are {', '.join(map(str, self.depths))} and the target is {self.to}: give each depth once, all below the target."
            )
        if self.stop or self.check_savings:
            raise InputError(
                "A ladder compares a fixed number of replicates at each depth: give replicates instead of stop, and no check_savings."
            )
        spec = self.spec()
        if len(spec.seeds) < 2:
            raise InputError("The ladder has 1 replicate an arm, which makes no error bar: give 2 or more, better 4.")
        if len(named := f"{self.name}-d{depths[-1]}") > LONGEST_NAME:
            raise InputError(
                f"The rungs would be named {named} and so on: give a name of at most {LONGEST_NAME - 4} characters."
            )
        return LadderSpec(spec, tuple(depths), self.to, self._ratio(), self.most)

    def _ratio(self) -> float:
        if self.train.tokens_per_parameter is not None:
            return self.train.tokens_per_parameter
        if self.train.tokens is None:
            return RULE
        return self.train.tokens / parameter_counts(ModelShape.of(self.train, self.data.vocab_size)).scaling


@dataclass(frozen=True)
class LadderSpec:
    """A comparison that is to be made at several depths, and the depth that they are to predict."""

    asked: ComparisonSpec
    depths: tuple[int, ...]
    to: int
    ratio: float
    """Trained tokens for each scaling parameter."""
    most: float

    def training(self, depth: int) -> Training:
        """As the arms are trained at a depth."""
        return self.asked.training.model_copy(
            update={"depth": depth, "tokens": None, "tokens_per_parameter": self.ratio}
        )

    def rungs(self) -> dict[int, ComparisonSpec]:
        """{depth: the comparison there}, each with a name, and so a registered plan, of its own."""
        return {
            depth: replace(self.asked, name=f"{self.asked.name}-d{depth}", training=self.training(depth))
            for depth in self.depths
        }

    def scale(self, depth: int, tokens: int | None = None, verdict: str | None = None) -> Scale:
        """A depth with the compute of a run on its tokens."""
        shape = self._shape(depth)
        budget = tokens or tokens_at(self.ratio, shape)
        return Scale(depth=depth, tokens=budget, flops=float(flops_per_token(shape)) * budget, verdict=verdict)

    def cost(self, ledger: Sequence[LedgerEntry] = ()) -> LadderCost:
        """Of all rungs and of a comparison at the target, by measured speeds where some are known."""
        rungs = total([self._estimate(depth, ledger) for depth in self.depths], "the ladder")
        target = self._estimate(self.to, ledger)
        runs = len(self.asked.arms) * len(self.asked.seeds)
        return LadderCost(
            flops=runs * sum(self.scale(depth).flops for depth in self.depths),
            target_flops=runs * self.scale(self.to).flops,
            hours=rungs.gpu_hours,
            target_hours=target.gpu_hours,
            dollars=rungs.dollars,
            target_dollars=target.dollars,
        )

    def require_affordable(self, cost: LadderCost) -> None:
        """Raises InputError when the rungs cost more than `most` of the direct comparison."""
        if cost.share > self.most:
            listed = ", ".join(map(str, self.depths))
            raise InputError(
                f"The depths {listed} would cost {cost.share:.2f} of a comparison at depth {self.to} with as many replicates, more than "
                f"most, {self.most:g}: leave out the deepest, predict a larger target, or raise most."
            )

    def _shape(self, depth: int) -> ModelShape:
        return ModelShape.of(self.training(depth), self.asked.pool.vocab_size)

    def _estimate(self, depth: int, ledger: Sequence[LedgerEntry]) -> CostEstimate:
        runs = len(self.asked.arms) * len(self.asked.seeds)
        vocab = self.asked.pool.vocab_size
        return estimate_cost(self.training(depth), self.scale(depth).tokens, vocab_size=vocab, runs=runs, ledger=ledger)


def conclude(spec: LadderSpec, judged: Mapping[int, tuple[str, Verdict]], cost: LadderCost, tested: Backtest) -> Ladder:
    """What the comparisons predict. `judged`: {depth: name of the verdict's artifact, verdict}.

    Raises InputError when a rung has no error bar.
    """
    scales = [spec.scale(depth, verdict.tokens, name) for depth, (name, verdict) in judged.items()]
    target = spec.scale(spec.to)
    verdicts = [verdict for _, verdict in judged.values()]
    forecasts = []
    for a, b in combinations([arm.name for arm in spec.asked.arms], 2):
        pairs = [next(p for p in verdict.comparisons if (p.a, p.b) == (a, b)) for verdict in verdicts]
        rungs = [_rung(scale, pair) for scale, pair in zip(scales, pairs, strict=True)]
        forecasts.append(_forecast(a, b, rungs, target, pairs[-1].on))
    return Ladder(
        name=spec.asked.name,
        created=registration.now(),
        code=code_version(),
        level=LEVEL,
        pool=verdicts[0].pool,
        decides=spec.asked.target,
        pairing=spec.asked.pairing,
        ratio=spec.ratio,
        replicates=len(spec.asked.seeds),
        scales=tuple(scales),
        target=target,
        forecasts=tuple(forecasts),
        backtest=tested,
        cost=cost,
    )


def _rung(scale: Scale, pair: Comparison) -> Rung:
    if pair.errors.documents is None:
        raise InputError(
            f"At d{scale.depth} {pair.clusters} blocks of documents decide{pair.on}, too few to know their error: take another target or "
            "a larger holdout."
        )
    return Rung(
        depth=scale.depth,
        flops=scale.flops,
        difference=pair.difference,
        low=pair.low,
        high=pair.high,
        error_seeds=pair.errors.seeds or 0.0,
        error_documents=pair.errors.documents,
        replicates=pair.seeds,
    )


def _forecast(a: str, b: str, rungs: Sequence[Rung], target: Scale, on: str) -> Forecast:
    compute = [rung.flops for rung in rungs]
    differences = np.array([rung.difference for rung in rungs])
    errors = np.array([rung.error_seeds for rung in rungs])
    documents = max(rung.error_documents for rung in rungs)
    found = predict(compute, differences[None], errors[None], target.flops, documents=documents)
    low, high = (float(end[0]) for end in found.interval())
    at = np.geomspace(min(compute), target.flops, POINTS).tolist()
    forecast = Forecast(
        a=a,
        b=b,
        rungs=tuple(rungs),
        difference=float(found.quantile(0.5)[0]),
        low=low,
        high=high,
        probability=float(found.below(np.zeros(1))[0]),
        between=float(found.between[0]),
        band=tuple(band(compute, differences, errors, at, documents)),
    )
    said = (f"The prediction is extrapolated from {', '.join(f'd{rung.depth}' for rung in rungs)}.", COVERS)
    return forecast.model_copy(update={"sentence": " ".join([_finding(forecast, target, on), *said]), "caveats": said})


def _finding(found: Forecast, target: Scale, on: str) -> str:
    """What is predicted, and how well the scales follow the law by which it is."""
    interval = f"{found.low:+.4f} to {found.high:+.4f}".replace("-", "−")
    where = f"At d{target.depth} on {target.tokens:,} tokens"
    if found.better:
        other = found.b if found.better == found.a else found.a
        says = f"{found.better} is predicted to be better than {other} by {abs(found.difference):.4f} bits per byte{on}"
    else:
        middle = f"{found.difference:+.4f}".replace("-", "−")
        says = (
            f"which of {found.a} and {found.b} is better{on} cannot be told from these scales: the middle of the prediction is {middle} "
            "bits per byte"
        )
    return (
        f"{where}, {says} ({found.a} minus {found.b}: {interval}, {100 * LEVEL:g} % interval). A scale is off its law by {found.between:.2g} "
        "(standard deviation)."
    )
