"""Work shared out over the GPUs of this host: runs that are trained, as many at a time as it has GPUs, and finished runs that are scored.

Each GPU has its own trainer, which stays (`warm`), and a run takes the first that is free (`turns`). Threads of the caller wait for them.
Scoring computes in the process that asks for it, so there each GPU gets a process.
"""

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.queues import SimpleQueue
from typing import TypeVar

from tasks.cores import end_with_parent, wait_for
from tasks.engines import entry
from tasks.engines.turns import VISIBLE, visible_gpus
from tasks.errors import InterruptedRun, LostProcessError, TrainingError
from tasks.progress import Stop, never
from tasks.spec import Training
from tasks.store.root import Root

T = TypeVar("T")
OF_ONE_RUN = (TrainingError, LostProcessError)
"""What ends one run and says nothing about the others."""


@dataclass(frozen=True)
class Scoring:
    """What a finished run is to be scored on besides the holdout: encoded texts and questions by name, and CORE."""

    run: str
    texts: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    core: bool = False


def turns_at_once(training: Training) -> int:
    """How many runs of this training can be at work at a time: one for each of its GPUs here, and one that loads; on a CPU one."""
    gpus = visible_gpus() if training.device != "cpu" else []
    places = len(gpus) // training.gpus
    return places + 1 if places > 1 else 1


def share(work: Callable[[T, Stop], object], items: Sequence[T], at_once: int) -> list[Exception]:
    """Do `work(item, stop)` for all items, begun in their order, `at_once` at a time. Returns the errors `OF_ONE_RUN`.

    Any other error, and any exception here (Ctrl-C), asks the work in hand to stop by its `stop`, begins nothing more, waits, and is raised.
    """
    waiting, failed, stopped = deque(items), list[Exception](), threading.Event()
    reasons: list[BaseException] = []

    def serve(stop: Stop) -> None:
        while waiting and not stop():
            try:
                item = waiting.popleft()
            except IndexError:  # another thread took the last one
                return
            try:
                work(item, stop)
            except OF_ONE_RUN as error:
                failed.append(error)

    def serve_aside() -> None:
        try:
            serve(stopped.is_set)
        except BaseException as error:
            reasons.append(error)
            stopped.set()

    if at_once < 2:
        serve(never)
        return failed
    with ThreadPoolExecutor(at_once, "run") as threads:
        try:
            wait_for([threads.submit(serve_aside) for _ in range(min(at_once, len(items)))])
        finally:
            stopped.set()
    if reasons:
        raise reasons[0]
    return failed


def score(root: Root, wanted: Sequence[Scoring]) -> None:
    """Score finished runs, a process for each GPU of this host; with one, or none, in this process. Raises what `entry` does.

    Whoever stops this process stops those at once: what a run was scored on is complete or not there.
    """
    gpus = visible_gpus()[: len(wanted)]
    if len(gpus) < 2:
        for each in wanted:
            _score(root, each)
        return
    spawn = multiprocessing.get_context("spawn")
    free = spawn.SimpleQueue()
    for gpu in gpus:
        free.put(gpu)
    others = set(multiprocessing.active_children())
    with ProcessPoolExecutor(len(gpus), spawn, _see_one, (free,)) as processes:
        jobs = [processes.submit(_score_there, root.url, each) for each in wanted]
        try:
            for job in jobs:
                job.result()
        except (InterruptedRun, KeyboardInterrupt):
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise
        except BrokenProcessPool as error:
            raise LostProcessError(
                "A process that scored runs was killed (out of memory, or by hand?): run again, which goes on with what is not scored yet."
            ) from error
        finally:
            processes.shutdown(cancel_futures=True)


def _see_one(free: "SimpleQueue[str]") -> None:
    """Take a GPU for the life of this process, before anything here has looked for one."""
    end_with_parent()
    os.environ[VISIBLE] = free.get()


def _score_there(root: str, wanted: Scoring) -> None:
    _score(Root(root), wanted)


def _score(root: Root, wanted: Scoring) -> None:
    for name in wanted.texts:
        entry.score_outside(root, wanted.run, name)
    for name in wanted.questions:
        entry.score_questions(root, wanted.run, name)
    if wanted.core:
        entry.evaluate_core(root, wanted.run)
