"""Score a finished run on texts from elsewhere and on nanochat's CORE tasks: what a comparison scores besides the holdout."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from tasks.cores import limited
from tasks.engines import steps as engines
from tasks.records.job import find_job
from tasks.reports.steps import show_core, show_outside
from tasks.spec import Cores, Id, Texts, Url
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.tokens.steps import outside

# The run form shows plain default values, not ones that a function makes.
TEXTS: list[Texts] = []


@flow(name="score", flow_run_name="{run}")
def score(
    run: Id,
    texts: Annotated[list[Texts], Field(max_length=64)] = TEXTS,
    core: bool = False,
    root: Url = DEFAULT_ROOT,
    workers: Cores | None = None,
) -> dict[str, Any]:
    """Score the final weights of a finished run on texts from elsewhere, and on nanochat's CORE tasks.

    What has been scored already is not scored again.

    Args:
        run: Name of a finished run, such as top16-d20-s1-0a1b2c3d4e: a folder below runs/ of the root.
        texts: Folders of texts that no arm has trained on: bits per byte of each, per document.
        core: Also nanochat's CORE tasks. Needs nanochat and its evaluation bundle on the worker's host.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        workers: Cores that encoding and scoring on a CPU take; empty: FABRATING_WORKERS, else all.
    """
    store = Root(root)
    with limited(workers):
        names = [outside(store, find_job(store, run).pool_id, one) for one in texts]
        found: dict[str, Any] = {name: engines.score_outside(root, run, name) for name in names}
        if core:
            found["core"] = engines.core(root, run)
    if names:
        show_outside(run, {name: found[name] for name in names})
    if core:
        show_core(run, found["core"])
    return {"run": run, **found}
