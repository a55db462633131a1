"""Ledger and W&B around a training: an attempt is opened before it, forwarded while it runs, and closed with how it ended."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tasks.errors import BusyError, InterruptedRun
from tasks.records import ledger
from tasks.records.layout import RunFolder, run_id
from tasks.reports.wandb_run import forwarded
from tasks.spec import Experiment
from tasks.store.root import Root


@contextlib.contextmanager
def recorded(
    root: Root,
    experiment: Experiment,
    pool: str,
    arm: str,
    flow_run: str | None = None,
    name: str | None = None,
    comparison: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Note the attempt in the run ledger, unless the run is complete and noted as such: then there is nothing to attempt.

    `name` is what a person calls the run. The block puts the facts of the result into the yielded dict.
    """
    run = run_id(experiment, arm)
    facts: dict[str, Any] = {}
    known = ledger.find(root, run)
    if known and known.state == "completed" and root.find(RunFolder(run).result):
        ledger.call(root, run, name)
        yield facts
        return
    ledger.open_entry(root, experiment, pool, arm, flow_run=flow_run, name=name, comparison=comparison)
    of_comparison = f"{comparison} {experiment.arm.name}-s{experiment.seed}" if comparison else None
    try:
        with forwarded(root, experiment, pool, arm, name or of_comparison):
            yield facts
    except InterruptedRun as error:
        ledger.finish(root, run, "interrupted", error=str(error))
        raise
    except Exception as error:
        if type(error) is BusyError and known:  # another attempt lives
            ledger.withdraw(root, known)
            raise
        ledger.finish(root, run, "failed", error=str(error))
        raise
    except BaseException as error:  # cancelled by the worker, or Ctrl-C
        ledger.finish(root, run, "cancelled", error=type(error).__name__)
        raise
    ledger.finish(root, run, "completed", facts=facts)
