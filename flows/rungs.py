"""The order of work of a ladder as plain functions: cost -> a comparison at each depth, the smallest first -> prediction.

Each rung is a comparison with its own registered plan, so a ladder that is run again reuses what is complete and resumes the rest.
"""

from collections.abc import Callable
from dataclasses import dataclass

from flows.comparison import Hands, Judged, plan_of, run_comparison
from tasks.errors import InputError
from tasks.records.ladder import Ladder
from tasks.records.ledger import entries
from tasks.reports.ladder import spent_before, write_ladder
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.verdict.backtest import backtest
from tasks.verdict.rungs import LadderSpec, conclude


@dataclass(frozen=True)
class Climbed:
    """A ladder at its end: the comparison at each depth, what they predict, and the artifact of that."""

    judged: dict[int, Judged]
    ladder: Ladder
    made: Artifact


def run_ladder(
    root: Root, spec: LadderSpec, hands: Hands, show: Callable[[Judged], object] = lambda rung: None
) -> Climbed:
    """Say what the rungs cost, make what is missing of each, and predict the target. `show` gets each rung once it is judged.

    Raises InputError when they cost more than the part of a direct comparison that the spec allows, and for whatever the comparisons refuse.
    """
    rungs = spec.rungs()
    for each in rungs.values():
        each.require_matched()
    cost = spec.cost(entries(root))
    hands.say(spent_before(spec.depths, spec.to, cost))
    spec.require_affordable(cost)
    for depth, each in reversed(rungs.items()):  # the deepest asks for most tokens: said before the others are trained
        try:
            plan_of(root, each, hands)
        except InputError as error:
            raise type(error)(f"Rung d{depth}: {error}") from error  # a store's refusal passes, and is tried again
    judged = {}
    for depth, each in rungs.items():
        hands.say(f"Rung d{depth}: {each.name}")
        judged[depth] = run_comparison(root, each, hands)
        show(judged[depth])
    found = {depth: (each.made.name, each.verdict) for depth, each in judged.items()}
    ladder = conclude(spec, found, cost, backtest(entries(root)))
    return Climbed(judged, ladder, write_ladder(root, ladder))
