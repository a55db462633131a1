"""Ledger and W&B around a training: an attempt is opened before it, forwarded while it runs, and closed with how it ended."""

import contextlib
from collections.abc import Iterator
from typing import Any

from tasks.errors import BusyError, InterruptedRun
from tasks.records import ledger
from tasks.records.layout import WAITING, RunFolder, run_id
from tasks.reports.wandb_run import forwarded
from tasks.spec import Experiment
from tasks.store.locks import hold
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
    """Note the attempt in the run ledger, unless the run is complete and noted as such.

    The block has the run to itself on this host, from before it waits for a GPU, and puts the facts of the result into the
    yielded dict. `name` is what a person calls the run. Raises BusyError when another process
    of this host keeps the run for longer than a minute.
    """
    run = run_id(experiment, arm)
    facts: dict[str, Any] = {}
    with contextlib.ExitStack() as held:
        if not _is_complete(root, run):
            held.enter_context(hold(root.path(RunFolder(run).file(WAITING)), f"The run {run}", run))
        if _is_complete(root, run):  # by now, if another process was at it: what it did is not noted twice
            ledger.call(root, run, name)
            yield facts
            return
        known = ledger.find(root, run)
        ledger.open_entry(root, experiment, pool, arm, flow_run=flow_run, name=name, comparison=comparison)
        of_comparison = f"{comparison} {experiment.arm.name}-s{experiment.seed}" if comparison else None
        try:
            with forwarded(root, experiment, pool, arm, name or of_comparison):
                yield facts
        except InterruptedRun as error:
            ledger.finish(root, run, "interrupted", error=str(error))
            raise
        except Exception as error:
            if type(error) is BusyError and known:  # another host's attempt lives
                ledger.withdraw(root, known)
                raise
            ledger.finish(root, run, "failed", error=str(error))
            raise
        except BaseException as error:  # cancelled by the worker, or Ctrl-C
            ledger.finish(root, run, "cancelled", error=type(error).__name__)
            raise
        ledger.finish(root, run, "completed", facts=facts)


def _is_complete(root: Root, run: str) -> bool:
    known = ledger.find(root, run)
    return bool(known and known.state == "completed" and root.find(RunFolder(run).result))
