"""Which depth, tokens and replicates can show an effect, before anything is spent."""

from dataclasses import asdict
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.deployed import as_deployed
from tasks.records.ledger import entries
from tasks.reports.steps import show_estimate
from tasks.spec import Dollars, Line, Url
from tasks.store.root import DEFAULT_ROOT, root_if_made
from tasks.verdict.design import propose, say


@flow(name="design")
@as_deployed
def design(
    effect: Annotated[float, Field(ge=1e-6, le=10)] = 0.01,
    dollars: Annotated[float, Field(gt=0, le=1e9)] = 100.0,
    arms: Annotated[int, Field(ge=2, le=64)] = 2,
    dollars_per_gpu_hour: Dollars = 3.0,
    device: Line | None = None,
    root: Url = DEFAULT_ROOT,
) -> dict[str, Any]:
    """Propose depth, tokens and replicates that show an effect for the money, with the smallest difference that they show.

    How far replicates scatter comes from the finished runs under the root, else from a table that ships with FabRating.

    Args:
        effect: The difference that is to be shown, in bits per byte.
        dollars: What all runs together may cost.
        arms: Arms of the comparison.
        dollars_per_gpu_hour: What a GPU costs.
        device: Name of the GPU as its driver reports it, or cpu; empty: the GPU that the table's default names.
        root: Where artifacts and the run ledger are kept. The default one need not be there yet.
    """
    store = root_if_made(root)
    known = entries(store) if store else []
    designs = propose(effect, dollars, known, arms=arms, dollars_per_gpu_hour=dollars_per_gpu_hour, device=device)
    sentence = say(designs[0], effect, dollars, arms)
    show_estimate("design", [each.cost for each in designs], [sentence])
    return {"proposal": sentence, "designs": [asdict(each) for each in designs]}
