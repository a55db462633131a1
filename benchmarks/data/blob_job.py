"""One preparation, as plain functions or as a flow; prints its seconds, start of the interpreter not counted."""

import json
import sys
import time

from prefect import flow

from tasks.corpus import prepare, steps
from tasks.spec import Arm, Pool
from tasks.store.root import Root

ARM = Arm(select="top")


def plain(root: str, pool: Pool) -> None:
    """Without Prefect."""
    prepare.build_index(Root(root), pool)
    prepare.build_holdout(Root(root), pool)
    prepare.plan_arm(Root(root), pool, ARM)
    prepare.build_arms(Root(root), pool, [ARM])


@flow
def orchestrated(root: str, pool: Pool) -> None:
    """The same steps as tasks."""
    steps.index_pool(root, pool)
    steps.holdout(root, pool)
    steps.plan(root, pool, ARM)
    steps.arms(root, pool, [ARM])


if __name__ == "__main__":
    kind, source, place = sys.argv[1:]
    began = time.monotonic()
    {"plain": plain, "flow": orchestrated}[kind](place, Pool(source=source))
    print(json.dumps({"seconds": time.monotonic() - began}))
