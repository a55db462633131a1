"""A model's kernels compiled before they are needed, side by side, while this process sets the GPU up and reads its data.

Forked helpers take a training step of the same model on the meta device, where tensors have shapes and addresses but no contents, with a
driver for Triton that builds kernels and launches none. They share out what they meet. What they build lies in Triton's cache, where
this process finds it; what they fail at is compiled when it is first needed, as without them.
"""

import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler.compiler import make_backend
from triton.runtime import driver
from triton.runtime.cache import triton_key

from tasks.cores import cores
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.kernels.chip import Chip, chip_of, describe
from tasks.progress import Stop, never
from tasks.records.scaling import ModelShape
from tasks.store.artifact import fingerprint

log = logging.getLogger(__name__)
HELPERS = 16
"""At most: a model has some 40 kernels, and the longest takes as long as four others."""
PATIENCE = 60.0
"""Seconds from the start of the helpers after which they are ended: what they have built by then is kept."""
Rehearsal = Callable[[], object]
"""Computes what is wanted on the meta device, with tensors of the right shapes."""


class _Compiler:
    """Triton's driver for a chip that is not there: kernels and their launchers are built, and nothing is launched."""

    def __init__(self, chip: Chip) -> None:
        self._target = _target(chip)
        self.launcher_cls, self.utils = _Launcher, _Utils

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> int:
        return -1  # of no GPU: Triton must not take a kernel that this process has for a real one

    def get_current_stream(self, device: int) -> int:
        return 0


class _Launcher:
    """Builds a kernel's launcher, by the C compiler."""

    def __init__(self, source: Any, metadata: Any) -> None:
        from triton.backends.nvidia.driver import CudaLauncher

        CudaLauncher(source, metadata)

    def __call__(self, *arguments: Any) -> None:
        """Launch nothing."""


class _Utils:
    """A GPU that takes any kernel."""

    @staticmethod
    def get_device_properties(device: int) -> dict[str, int]:
        return {"max_shared_mem": 2**30}

    @staticmethod
    def load_binary(*arguments: Any) -> tuple[str, str, int, int, int]:
        return "module", "function", 0, 0, 2**20


class _Claims:
    """Which helper builds what: a lock on a byte of a file for each kernel, in the order in which all of them meet them."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._met: dict[Any, bool] = {}

    def mine(self, what: Any) -> bool:
        if what not in self._met:
            try:
                fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, len(self._met))
                self._met[what] = True
            except OSError:
                self._met[what] = False
        return self._met[what]

    def skip(self, *, key: Any, fn: Any, **_: Any) -> bool:
        """Triton's hook before it compiles: whether to leave it."""
        return not self.mine((fn.module, fn.name, key))


@contextlib.contextmanager
def compiling(
    config: ModelShape, precision: str, world: World, rehearse: Rehearsal, stop: Stop = never
) -> Iterator[None]:
    """Have the kernels of a model's training steps and evaluations built while the block lasts, and wait for them at its end.

    The first of several ranks does it for all, once for a set of kernels. `rehearse` is called in the helpers. They are ended by
    `stop`, and when the block raises: they hold what this process holds, its locks among it.
    """
    chip = chip_of(world.device)
    tried = _tried(_key(config, precision, chip))
    deadline = time.monotonic() + PATIENCE
    process = _begin(tried, lambda: _lead(rehearse, chip)) if world.leads else 0
    try:
        threading.Thread(target=_hash_compiler, args=(chip,), name="compiler", daemon=True).start()
        yield
        if process and not _wait_for(process, deadline, stop):
            log.info("not all kernels could be compiled ahead: the first step takes longer")
        if process and not stop():
            with contextlib.suppress(OSError):
                tried.touch()
    finally:
        if process:
            _wait_for(process, 0.0)
    world.barrier()


def _begin(tried: Path, lead: Callable[[], bool]) -> int:
    """The process that leads the helpers; 0 where they were at it before, or there is no core, memory or process for them."""
    try:
        return 0 if cores() == 1 or tried.exists() else _fork(lead)
    except OSError as error:
        log.info("kernels are not compiled ahead: %s", error)
        return 0


def _key(config: ModelShape, precision: str, chip: Chip) -> str:
    """Of a set of kernels: shape, chip, compiler and our code."""
    code = sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        code.update(path.read_bytes())
    return fingerprint(
        asdict(config), precision, list(chip), triton.__version__, str(torch.__version__), code.hexdigest()
    )


def _target(chip: Chip) -> GPUTarget:
    major, minor = chip.capability
    return GPUTarget("cuda", 10 * major + minor, 32)


def _hash_compiler(chip: Chip) -> None:
    """Read Triton's 400 MB, whose hash every compiled kernel is looked up by, before the first kernel is. Triton remembers it."""
    triton_key()
    make_backend(_target(chip)).hash()


def _tried(key: str) -> Path:
    """The file beside Triton's cache that says that helpers were at a set to their end. What they failed at is kept by the first step."""
    return Path(knobs.cache.dir) / f"ahead-{key}"


def _lead(rehearse: Rehearsal, chip: Chip) -> bool:
    """In a process of its own: fork the helpers and wait for them. If some fail, one says why: mostly all fail at the same."""
    hashed = threading.Thread(target=_hash_compiler, args=(chip,))
    hashed.start()
    _import_for_the_meta_device()
    hashed.join()
    with tempfile.TemporaryFile() as file:
        helpers = [_fork(lambda: _help(rehearse, chip, file)) for _ in range(min(HELPERS, cores() - 1))]
        done = all([_wait_for(helper) for helper in helpers])
        file.seek(0)
        if not done and (said := file.read().splitlines()):
            print(said[-1].decode(errors="replace"), file=sys.stderr, flush=True)
        return done


def _help(rehearse: Rehearsal, chip: Chip, file: IO[bytes]) -> bool:
    """Build the kernels of a rehearsal that are ours to build, and say what there is to say into `file`. Triton launches nothing in
    this process any more."""
    os.dup2(file.fileno(), sys.stderr.fileno())
    claims = _Claims(file)
    describe(chip)
    driver.set_active(_Compiler(chip))
    knobs.runtime.jit_cache_hook = claims.skip
    if claims.mine("utilities"):
        from triton.backends.nvidia.driver import CudaUtils

        CudaUtils()
    rehearse()
    return True


def _import_for_the_meta_device() -> None:
    """What operations on it import when they are first called, and a stand-in for PyTorch's compiler unless that is there: they ask it
    to leave them alone, and importing it takes longer than building all kernels."""
    if "torch._dynamo" not in sys.modules:
        stand_in = ModuleType("torch._dynamo")
        stand_in.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
        sys.modules["torch._dynamo"] = stand_in
    torch.empty_like(torch.empty(1, device="meta"))


def _fork(work: Callable[[], bool]) -> int:
    """A child that does some work, ends with status 0 if that is done, and dies with this process. Its number. Whatever happens in it,
    the child does not get out of here: it would go on as a second trainer."""
    parent = os.getpid()
    with warnings.catch_warnings():  # of other threads here: the child needs nothing that they could hold
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process:
        return process
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() == parent:
            status = 0 if work() else 1
    except BaseException as error:
        print(f"kernels are not compiled ahead: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
    finally:
        os._exit(status)


def _wait_for(process: int, deadline: float = float("inf"), stop: Stop = never) -> bool:
    """Whether a child did its work by then; else, or on `stop`, it is killed."""
    while True:
        try:
            ended, status = os.waitpid(process, os.WNOHANG)
        except ChildProcessError:
            return False
        if ended:
            return status == 0
        if time.monotonic() > deadline or stop():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
            deadline = float("inf")
        time.sleep(0.005)
