"""Checkpoints: complete or absent, written and mirrored while training continues.

A checkpoint is an artifact `runs/<run>/checkpoints/step_000250`: `model.pt` (weights by nanochat's names), one
`optimizer_00.pt` per rank (what that rank owns of the optimizer; the union is the same for any number of ranks) and
`state.json` (step, rows read, ranks). The training thread only copies tensors to host memory; a thread writes, syncs, hashes
and publishes them, another mirrors them to a remote root. Tensors are loaded with `weights_only=True`: no code in a file is
ever run.
"""

import json
import logging
import re
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.errors import DamagedError, DeniedError, DiskError, InputError, StoreError, SupersededError, TrainingError
from tasks.records.layout import RunFolder
from tasks.store.artifact import MANIFEST, Artifact, Sources, Work, contents, fingerprints, set_aside, sha256_file, sync
from tasks.store.root import Root

log = logging.getLogger(__name__)
MODEL, STATE = "model.pt", "state.json"
NAME = re.compile(r"step_(\d{6,})$")
SHARD_TIMEOUT = 600.0
"""Seconds that rank 0 waits for the other ranks' part of a checkpoint."""
Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint on this machine. `state`: step, rows and ranks."""

    artifact: Artifact
    state: Mapping[str, Any]

    @property
    def step(self) -> int:
        return self.state["step"]

    @property
    def rows(self) -> int:
        """Packed rows that it was trained on."""
        return self.state["rows"]

    @classmethod
    def of(cls, artifact: Artifact) -> "Checkpoint":
        return cls(artifact, json.loads((artifact.path / STATE).read_bytes()))

    def model(self) -> dict[str, torch.Tensor]:
        """The weights, mapped from the file, on the CPU."""
        return load_tensors(self.artifact.path / MODEL)

    def shards(self) -> list[dict[str, dict[str, torch.Tensor]]]:
        """What each rank wrote beside the weights, mapped from the files, on the CPU: sections of tensors by name."""
        return [load_tensors(self.artifact.path / shard_name(rank)) for rank in range(self.state["ranks"])]


def load_tensors(path: Path) -> dict[str, Any]:
    """Tensors of a file, mapped into memory, on the CPU. Raises DamagedError when it holds anything else."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # pickle, zip and tensor errors have no common base
        raise DamagedError(
            f"{path} cannot be read as plain tensors ({type(error).__name__}): remove that checkpoint, or use another one."
        ) from error


def shard_name(rank: int) -> str:
    """The file of what one rank owns."""
    return f"optimizer_{rank:02d}.pt"


def steps_of(names: Iterable[str]) -> dict[int, str]:
    """Artifact names of checkpoints by their step, in ascending order."""
    found = {int(match[1]): name for name in names if (match := NAME.search(name))}
    return dict(sorted(found.items()))


def stale(steps: Sequence[int], last: int, every: int | None) -> list[int]:
    """The steps whose checkpoints go: neither among the `last` newest nor a multiple of `every`."""
    old = sorted(steps)[:-last]
    return [step for step in old if not every or step % every]


def find(root: Root, run: str, inputs: Sources, step: int | None = None) -> Checkpoint | None:
    """The newest complete checkpoint of a run (or that of `step`), downloaded if need be, every checksum compared.

    A damaged one is set aside and named in a warning; it is fetched again from a remote root that has it undamaged, else the
    next older one is taken. Raises InputError when a complete one belongs to other inputs, or when `step` has none.
    """
    folder = root.path(RunFolder(run).checkpoints)
    for directory in sorted(folder.glob("step_*")):
        if not (directory / MANIFEST).is_file():
            set_aside(directory, f"{directory} has no manifest")
    names = steps_of(root.names(RunFolder(run).checkpoints))
    wanted = [step] if step is not None else list(reversed(names))
    for candidate in wanted:
        if candidate not in names:
            raise InputError(
                f"The run {run} has no checkpoint of step {candidate}: choose one of {', '.join(map(str, names)) or 'none'}."
            )
        checkpoint = _open(root, names[candidate])
        if checkpoint is None:
            continue
        manifest = checkpoint.artifact.manifest
        if (manifest.inputs, manifest.made_from) != (fingerprints(inputs), contents(inputs)):
            raise InputError(
                f"{checkpoint.artifact.path} was trained on other inputs than the run {run} has now: "
                f"move the folder runs/{run} away and train again."
            )
        return checkpoint
    if step is not None:
        raise DamagedError(f"The checkpoint of step {step} of the run {run} is damaged: choose another step.")
    return None


def load(root: Root, run: str, step: int) -> Checkpoint:
    """The checkpoint of `step` on this machine, whose checksums another process has compared."""
    return Checkpoint.of(root.open(RunFolder(run).checkpoint(step)))


def _open(root: Root, name: str) -> Checkpoint | None:
    for source in ("this machine", "the remote root"):
        try:
            checkpoint = Checkpoint.of(root.open(name, checksums=True))
            checkpoint.model()
            checkpoint.shards()
            return checkpoint
        except (StoreError, DeniedError):  # says nothing of the checkpoint
            raise
        except (DamagedError, OSError, ValueError, KeyError) as error:
            log.warning("Checkpoint %s on %s is passed over: %s", name, source, error)
            if root.path(name).exists():
                set_aside(root.path(name), f"{name} is damaged")
            if root.remote is None:
                return None
    return None


def to_host(tensors: Tensors) -> dict[str, torch.Tensor]:
    """Copies in host memory, so that training can continue while they are written."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def put(work: Work, name: str, content: Mapping[str, Any]) -> None:
    """Write a file of tensors into a checkpoint in the making; hashed while the disk takes it."""
    path = work.temporary(name)
    torch.save(dict(content), path)
    with ThreadPoolExecutor(1, "sha256") as hasher:
        digest = hasher.submit(sha256_file, path)
        sync(path)
        work.finish(name, sha256=digest.result())


def put_state(work: Work, state: Mapping[str, Any]) -> None:
    """Write `state.json` into a checkpoint in the making."""
    work.temporary(STATE).write_text(json.dumps(dict(state), indent=1))
    work.finish(STATE)
    work.facts.update(step=state["step"], rows=state["rows"])


def build_imported(root: Root, run: str, weights: Tensors, inputs: Sources, step: int, rows: int) -> Artifact:
    """Weights that another trainer made, as a checkpoint of a run. It has no optimizer: score it, do not resume it."""

    def make(work: Work) -> None:
        put(work, MODEL, weights)
        put(work, shard_name(0), {"optimizer": {}, "compute": {}, "random": {}})
        put_state(work, {"step": step, "rows": rows, "ranks": 1})

    return root.build(RunFolder(run).checkpoint(step), make, spec={"run": run, "step": step}, inputs=inputs)


class Checkpoints:
    """Writes the checkpoints of one run; every rank has one of these, rank 0 publishes.

    `attempt`: a word that all ranks of this attempt share. `last`: the step that the run was resumed from. `mirrored` files
    (metrics, job) go to a remote root with each checkpoint.
    """

    def __init__(
        self,
        root: Root,
        run: str,
        inputs: Sources,
        attempt: str,
        *,
        rank: int = 0,
        ranks: int = 1,
        keep_last: int = 3,
        keep_every: int | None = None,
        mirrored: Sequence[Path] = (),
        last: int | None = None,
    ):
        self.last = last
        self._root, self._run, self._inputs, self._attempt = root, run, dict(inputs), attempt
        self._rank, self._ranks = rank, ranks
        self._keep_last, self._keep_every, self._mirrored = keep_last, keep_every, tuple(mirrored)
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._mirror = ThreadPoolExecutor(1, "mirror")
        self._writing: Future[None] | None = None
        self._mirroring: Future[None] | None = None
        folder = root.path(RunFolder(run).checkpoints)
        folder.mkdir(parents=True, exist_ok=True)
        if rank == 0:
            for leftover in folder.glob(".step_*.partial"):
                if attempt not in leftover.name:
                    shutil.rmtree(leftover)

    def save(self, model: Tensors, shard: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        """Hand over tensors in host memory that nobody changes any more; returns at once.

        `model` counts on rank 0 only, `shard` is what this rank owns besides. Waits for the previous checkpoint, if that is
        still being written, and raises what went wrong with it.
        """
        self.settle()
        self._writing = self._writer.submit(self._write, model, shard, {**state, "ranks": self._ranks})

    def settle(self) -> None:
        """Wait until the checkpoint in hand is on disk. Raises DiskError when it could not be written."""
        if self._writing is not None:
            self._writing.result()

    def check(self) -> None:
        """Raise what went wrong with a checkpoint, without waiting; SupersededError when another host has taken the run over."""
        self._root.check_lease(ask=False)
        if self._writing is not None and self._writing.done():
            self._writing.result()

    def close(self, mirror_seconds: float | None = None) -> None:
        """Finish writing, and mirroring for at most `mirror_seconds` (None: as long as it takes)."""
        try:
            self.settle()
            if self._mirroring is not None:
                self._mirroring.result(mirror_seconds)
        except TimeoutError:
            log.warning("Step %s is on this machine, its copy in %s is not complete.", self.last, self._root.url)
        finally:
            self._writer.shutdown(wait=False)
            self._mirror.shutdown(wait=False, cancel_futures=True)

    def _write(self, model: Tensors, shard: Mapping[str, Tensors], state: Mapping[str, Any]) -> None:
        step = state["step"]
        final = self._root.path(RunFolder(self._run).checkpoint(step))
        work = Work(final.with_name(f".{final.name}.{self._attempt}.partial"))
        try:
            work.path.mkdir(parents=True, exist_ok=True)
            with ThreadPoolExecutor(2, "checkpoint-file") as files:
                parts = [files.submit(put, work, shard_name(self._rank), shard)]
                if self._rank == 0:
                    parts.append(files.submit(put, work, MODEL, model))
                    self._check_finite(model, step)
                for part in parts:
                    part.result()
            if self._rank == 0:
                put_state(work, state)
                self._await_others(work)
                if self._root.remote is None:
                    self._root.check_lease()
                if final.exists():
                    shutil.rmtree(final)
                work.publish(
                    final, RunFolder(self._run).checkpoint(step), {"run": self._run, "step": step}, self._inputs
                )
        except (TrainingError, SupersededError):
            shutil.rmtree(work.path, ignore_errors=True)
            raise
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            shutil.rmtree(work.path, ignore_errors=True)
            kind = TrainingError if isinstance(error, TimeoutError) else DiskError
            raise kind(
                f"The checkpoint of step {step} could not be written to {final} ({error}): free space there and run "
                f"again; {self.describe_last()}."
            ) from error
        self.last = step
        if self._rank == 0:
            self._mirroring = self._mirror.submit(self._publish_and_prune, step)

    def _check_finite(self, model: Tensors, step: int) -> None:
        broken = next((name for name, t in model.items() if t.is_floating_point() and not t.isfinite().all()), None)
        if broken is not None:
            raise TrainingError(
                f"After step {step} the weight {broken} holds values that are no numbers; {self.describe_last()}."
            )

    def _await_others(self, work: Work) -> None:
        """Until each rank has written its shard: they share this host's disk, so no collective is needed."""
        deadline = time.monotonic() + SHARD_TIMEOUT
        while missing := [rank for rank in range(self._ranks) if work.done(shard_name(rank)) is None]:
            if time.monotonic() > deadline:
                raise TimeoutError(f"ranks {missing} wrote nothing in {SHARD_TIMEOUT:.0f} s")
            time.sleep(0.02)

    def describe_last(self) -> str:
        """Where a run would resume, for messages."""
        if self.last is None:
            return "there is no earlier checkpoint"
        return f"the last good checkpoint is that of step {self.last}, {self._root.path(RunFolder(self._run).checkpoint(self.last))}"

    def _publish_and_prune(self, step: int) -> None:
        """Upload the checkpoint (unless a newer one waits already), then drop what is not kept. Never stops training."""
        if step != self.last:
            return
        try:
            self._upload(step)
            whole = True
        except SupersededError:  # `check` says so at the next report
            return
        except Exception as error:  # a store that is away must not stop training: the next checkpoint tries again
            whole = False
            log.warning("Step %d was not mirrored to %s (%s); training continues.", step, self._root.url, error)
        try:
            self._prune(whole)
        except Exception as error:  # likewise
            log.warning("Old checkpoints of %s were not removed (%s).", self._run, error)

    def _upload(self, step: int) -> None:
        if self._root.remote is None:
            return
        for path in filter(Path.is_file, self._mirrored):
            self._root.upload_file(path)
        self._root.mirror(RunFolder(self._run).checkpoint(step))

    def _prune(self, everywhere: bool) -> None:
        names = steps_of(self._root.names(RunFolder(self._run).checkpoints))
        for step in stale(list(names), self._keep_last, self._keep_every):
            if everywhere:
                self._root.remove(names[step])
            else:  # the remote copies may be all that another host would find
                shutil.rmtree(self._root.path(names[step]), ignore_errors=True)
