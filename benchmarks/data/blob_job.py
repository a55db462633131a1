"""One preparation, as plain functions or as a flow; prints its seconds, start of the interpreter not counted."""

import json
import sys
import time

from prefect import flow

from flows.prepare import TaskSteps
from flows.sequence import Steps
from tasks.corpus import prepare
from tasks.corpus.arm.traits import wanted_columns
from tasks.spec import Arm, Pool
from tasks.store.root import Root

ARM = Arm(select="top")


def plain(root: Root, pool: Pool, steps: Steps) -> None:
    """From the blobs to the text of an arm."""
    handle, columns = prepare.open_pool(root, pool), wanted_columns(ARM, pool)
    steps.spread(
        "Index", lambda progress, workers: prepare.build_index(root, handle, columns, mapper=workers, progress=progress)
    )
    steps.run("Holdout", lambda progress: prepare.build_holdout(root, handle, progress=progress))
    steps.run("Plan", lambda _: prepare.plan_arm(root, handle, ARM))
    steps.spread(
        "Text", lambda progress, workers: prepare.build_arms(root, handle, [ARM], mapper=workers, progress=progress)
    )


@flow
def orchestrated(root: str, pool: Pool) -> None:
    """The same steps as tasks."""
    plain(Root(root), pool, TaskSteps())


if __name__ == "__main__":
    kind, source, place = sys.argv[1:]
    began = time.monotonic()
    if kind == "flow":
        orchestrated(place, Pool(source=source))
    else:
        plain(Root(place), Pool(source=source), Steps())
    print(json.dumps({"seconds": time.monotonic() - began}))
