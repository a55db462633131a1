"""The usual depths side by side: parameters, tokens at a ratio, and what training costs on each GPU.

Parameter counts of other tables may be of other models: `other_table` holds one against these, by what both say of themselves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.records.cost import CostEstimate, estimate_cost
from tasks.records.ledger import LedgerEntry
from tasks.records.scaling import ModelShape, parameter_counts, tokens_at
from tasks.spec import Training

DEPTHS = tuple(range(12, 33, 2))
GPUS = {
    "H100": "NVIDIA H100 80GB HBM3",
    "H200": "NVIDIA H200",
    "GH200": "NVIDIA GH200 480GB",
    "A100": "NVIDIA A100-SXM4-80GB",
}
"""Short names of GPUs and those of their drivers."""
RULE = 10.5
"""Trained tokens for each scaling parameter, if nothing else is asked for."""
OLD_TABLE = {20: (124e6, 1.3e9), 24: (178e6, 1.9e9), 26: (215e6, 2.3e9), 32: (335e6, 3.5e9)}
"""A table that was planned by before: {depth: parameters, tokens}."""


@dataclass(frozen=True)
class Size:
    """One depth. `costs`: {short name of a GPU: what one run on it costs}."""

    depth: int
    parameters: int
    scaling: int
    tokens: int
    costs: Mapping[str, CostEstimate]


def sizes(training: Training, ratio: float, vocab_size: int, ledger: Sequence[LedgerEntry] = ()) -> list[Size]:
    """The table for models like that of `training`, of all `DEPTHS`, trained on `ratio` tokens for each scaling parameter."""
    found = []
    for depth in DEPTHS:
        of_depth = training.model_copy(update={"depth": depth})
        shape = ModelShape.of(of_depth, vocab_size)
        counts, tokens = parameter_counts(shape), tokens_at(ratio, shape)
        costs = {
            name: estimate_cost(of_depth, tokens, vocab_size=vocab_size, ledger=ledger, device=device)
            for name, device in GPUS.items()
        }
        found.append(Size(depth, counts.total, counts.scaling, tokens, costs))
    return found


def other_table(table: Mapping[int, tuple[float, float]], vocab_size: int) -> str:
    """A sentence: why a `table` of {depth: parameters, tokens} has other counts than these models.

    It names the ratio that the table used, how many times as many scaling parameters the models have, and the depths whose
    scaling parameters come closest to its counts.
    """

    def scaling(depth: int) -> int:
        return parameter_counts(ModelShape.of_depth(depth, vocab_size=vocab_size)).scaling

    def nearest(parameters: float) -> int:
        return min(range(1, max(table) + 1), key=lambda depth: abs(scaling(depth) - parameters))

    counts = ", ".join(f"d{depth} {parameters / 1e6:.0f} M" for depth, (parameters, _) in table.items())
    ratios = [tokens / parameters for parameters, tokens in table.values()]
    alike = ", ".join(f"d{depth} ({scaling(depth) / 1e6:.0f} M)" for depth in (nearest(p) for p, _ in table.values()))
    times = [scaling(depth) / parameters for depth, (parameters, _) in table.items()]
    trained = [tokens / scaling(depth) for depth, (_, tokens) in table.items()]
    return (
        f"A table with {counts} parameters keeps the ratio ({_range(ratios)} tokens a parameter) but counts smaller models, about the "
        f"scaling parameters of {alike}: the depths that it names have {_range(times)} times as many, so its tokens are "
        f"{_range(trained)} for each."
    )


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"
