"""What a comparison would cost, and what it could show, before anything is spent."""

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.deployed import as_deployed
from tasks.records.cost import estimate_cost
from tasks.records.ledger import entries
from tasks.records.scaling import ModelShape, tokens_at
from tasks.reports.steps import show_estimate
from tasks.spec import Count, Line, Pool, Training, Url
from tasks.store.root import DEFAULT_ROOT, root_if_made
from tasks.verdict.planning import spread_between_seeds, what_seeds_show

Few = Annotated[int, Field(ge=1, le=1_000)]


@flow(name="estimate")
@as_deployed
def estimate(
    tokens: Count = 5_000_000_000,
    train: Training = Training(),
    arms: Few = 2,
    seeds: Few = 3,
    device: Line | None = None,
    root: Url = DEFAULT_ROOT,
) -> dict[str, Any]:
    """Estimate what training costs (hours, dollars and disk, per run and in total) and the smallest difference it can show.

    Speed is measured: by a similar run of this installation if there is one, else by the table that ships with FabRating.

    Args:
        tokens: Trained tokens of one run; not read if train.tokens_per_parameter is given.
        train: How every arm is trained, and what a GPU costs per hour.
        arms: Arms of the comparison.
        seeds: Seeds of each arm.
        device: Name of the GPU as its driver reports it, or cpu; empty: the GPU that the table's default names.
        root: Where artifacts and the run ledger are kept. The default one need not be there yet.
    """
    store = root_if_made(root)
    ledger = entries(store) if store else []
    if train.tokens_per_parameter is not None:
        tokens = tokens_at(train.tokens_per_parameter, ModelShape.of(train, Pool().vocab_size))
    whole = f"{arms} arms x {seeds} seeds"
    cost = estimate_cost(train, tokens, runs=arms * seeds, label=whole, ledger=ledger, device=device)
    one = estimate_cost(train, tokens, label="one run", ledger=ledger, device=device)
    shows = what_seeds_show(spread_between_seeds(ledger, train), arms, seeds)
    show_estimate("training", [one, cost], [shows])
    return {**asdict(cost), "seeds": shows}
