"""Hooks upstream nanochat in memory; nothing on disk is changed.

Standalone: runs inside nanochat's own environment, in the folder of its checkout, and imports nothing of FabRating:

    FABRATING_OVERLAY=settings.json python overlay.py scripts.base_train --depth=20 ...

under torchrun likewise. The settings file (JSON) holds:

    shards, validation   paths of the training shards in order, and of the holdout's shard
    evaluation           folder of the encoded holdout (tokens.bin, documents.parquet), bos: id of `<|bos|>`
    rows, sequence       rows of a micro-batch and tokens of a row, as on the command line
    seed                 of the initial weights
    compile              false: torch.compile does nothing
    state                a folder for the nats per holdout document of the last evaluation (nats.f64)

What is hooked: where shards lie; validation is each document of the common holdout exactly once, whatever --eval-tokens
says; a parquet file with any number of row groups feeds every rank; exactly one of PyTorch's two TF32 interfaces is used; a
checkpoint is saved before evaluations, its files appear whole, its metadata last; SIGTERM writes a checkpoint and
ends with status 75; ranks on CPUs talk by gloo. Lines that start with `fabrating: ` are JSON for the launcher.
"""

import ast
import ctypes
import faulthandler
import functools
import importlib
import json
import math
import os
import signal
import sys
import time
import types
from pathlib import Path

SETTINGS = "FABRATING_OVERLAY"
STOPPED = 75
TRAIN = "scripts.base_train"
MARKER = "fabrating"
HEARTBEAT_SECONDS = 10.0
SECONDS_TO_SAVE = 60
PR_SET_PDEATHSIG = 1


def tell(**event):
    """One line for the launcher, from the first rank."""
    if rank() == 0:
        print(f"{MARKER}: {json.dumps(event)}", flush=True)


def rank():
    return int(os.environ.get("RANK", 0))


def world_size():
    return int(os.environ.get("WORLD_SIZE", 1))


def write_whole(path, write):
    """Let `write` fill a temporary sibling, sync it, and make it visible at once."""
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        write(temporary)
        with open(temporary, "rb") as file:  # noqa: PTH123 - plain paths, as upstream has them
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105
    finally:
        Path(temporary).unlink(missing_ok=True)


# --- this process -----------------------------------------------------------------------------------------------------


def guard_process():
    """Get SIGTERM when the launcher goes, print all stacks on SIGUSR1."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


class Stop:
    """Whether SIGTERM or SIGINT came, to this rank or another. A rank that does not get to save in time is ended by SIGALRM."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, number, frame):
        self.asked = True
        signal.alarm(SECONDS_TO_SAVE)

    def __call__(self):
        import torch
        import torch.distributed as dist

        if not dist.is_initialized():
            return self.asked
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        asked = torch.tensor(int(self.asked), device=device)
        dist.all_reduce(asked, op=dist.ReduceOp.MAX)
        return bool(asked.item())


# --- torch ------------------------------------------------------------------------------------------------------------


def leave_out_compile():
    """torch.compile as a call and as a decorator that changes nothing."""
    import torch

    def unchanged(model=None, **options):
        return model if model is not None else lambda function: function

    torch.compile = unchanged


class WithoutPrecision:
    """`torch` as seen by upstream's start-up code, for which both ways to allow TF32 do nothing."""

    class _Backends:
        def __init__(self, backends):
            object.__setattr__(self, "_backends", backends)

        def __getattr__(self, name):
            return getattr(self._backends, name)

        def __setattr__(self, name, value):
            if name != "fp32_precision":
                setattr(self._backends, name, value)

    def __init__(self, torch):
        self._torch = torch
        self.backends = self._Backends(torch.backends)

    def __getattr__(self, name):
        return getattr(self._torch, name)

    def set_float32_matmul_precision(self, precision):
        """Nothing: the overlay sets it."""


def join_cpu_ranks():
    """A gloo group. Its reduce-scatter has no futures, which upstream's optimizer asks for: it waits instead."""
    import torch.distributed as dist

    dist.init_process_group("gloo")
    scatter = dist.reduce_scatter_tensor
    done = types.SimpleNamespace(wait=lambda: True)  # the handle of a collective that is over
    done.get_future = lambda: done

    @functools.wraps(scatter)
    def reduce_scatter_tensor(*arguments, async_op=False, **options):
        scatter(*arguments, async_op=False, **options)
        return done if async_op else None

    dist.reduce_scatter_tensor = reduce_scatter_tensor


def hook_start(settings):
    """One TF32 interface, ranks on CPUs joined, the experiment's seed."""
    import torch
    from nanochat import common

    original = common.compute_init

    @functools.wraps(original)
    def compute_init(device_type="cuda"):
        common.torch = WithoutPrecision(torch)
        try:
            started = original(device_type)
        finally:
            common.torch = torch
        if device_type == "cuda":
            torch.set_float32_matmul_precision("high")
        elif device_type == "cpu" and started[0]:
            join_cpu_ranks()
        torch.manual_seed(settings["seed"])
        return started

    common.compute_init = compute_init


# --- data -------------------------------------------------------------------------------------------------------------


class EvenFile:
    """A parquet file as upstream's loader reads it, its rows divided evenly over a multiple of `world` row groups.

    The loader gives row group i to rank i % world; a file with fewer groups than ranks would feed nothing to the last ones.
    """

    def __init__(self, path, world):
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        sizes = [self._file.metadata.row_group(i).num_rows for i in range(self._file.num_row_groups)]
        self._starts = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
        self.num_rows = self._starts[-1]
        self.num_row_groups = max(1, math.ceil(len(sizes) / world)) * world

    def read_row_group(self, index):
        """The table of the text column of rows [i n / groups, (i + 1) n / groups)."""
        first = self.num_rows * index // self.num_row_groups
        last = self.num_rows * (index + 1) // self.num_row_groups
        groups = [i for i in range(len(self._starts) - 1) if self._starts[i] < last and self._starts[i + 1] > first]
        table = self._file.read_row_groups(groups, columns=["text"])
        return table.slice(first - self._starts[groups[0]] if groups else 0, last - first)


def hook_data(settings):
    """The arm's shards, and the holdout where upstream looks for validation: last."""
    import pyarrow.parquet as pq
    from nanochat import dataloader, dataset

    paths = [*settings["shards"], settings["validation"]]
    world = world_size()
    most = max(pq.ParquetFile(path).metadata.num_rows for path in settings["shards"])
    if most < world:
        raise SystemExit(f"Every shard has fewer documents than the {world} ranks: some would wait for ever.")

    dataset.list_parquet_files = dataloader.list_parquet_files = lambda *_, **__: paths
    dataloader.pq = types.SimpleNamespace(ParquetFile=lambda path: EvenFile(path, world))


# --- evaluation -------------------------------------------------------------------------------------------------------


def windows_of(lengths, sequence):
    """(document, context, start, stop): tokens [start, stop) are predicted after `context` tokens scored before.

    The first window of a document predicts `sequence` tokens, each further one starts a quarter of that earlier.
    """
    context = sequence // 4
    rows = []
    for document, length in enumerate(lengths):
        if length:
            rows.append((document, 0, 0, min(length, sequence)))
        for start in range(sequence, length, sequence - context):
            rows.append((document, context, start, min(length, start + sequence - context)))
    return rows


class HoldoutEvaluation:
    """Bits per byte of the holdout: each document by itself, exactly once, long ones in windows."""

    def __init__(self, settings):
        import numpy as np
        import pyarrow.parquet as pq

        folder = Path(settings["evaluation"])
        documents = pq.read_table(folder / "documents.parquet", columns=["offset", "tokens", "bytes"])
        self.offset, self.bytes = (documents[name].to_numpy() for name in ("offset", "bytes"))
        self.decile = pq.read_table(settings["strata"], columns=["decile"])["decile"].to_numpy()
        self.tokens = np.fromfile(folder / "tokens.bin", dtype="<u2")
        self.rows, self.sequence, self.bos = settings["rows"], settings["sequence"], settings["bos"]
        self.windows = windows_of(documents["tokens"].to_pylist(), self.sequence)
        self.nats_file = Path(settings["state"]) / "nats.f64"

    def batch(self, windows, device):
        """Inputs and targets (rows, sequence), int64; what is not to be predicted has target -1."""
        import torch

        inputs = torch.full((self.rows, self.sequence), self.bos)
        targets = torch.full((self.rows, self.sequence), -1)
        for row, (document, context, start, stop) in enumerate(windows):
            offset = int(self.offset[document])
            text = torch.from_numpy(self.tokens[offset + start - context : offset + stop].astype("int64"))
            inputs[row, 1 : len(text)] = text[:-1]
            targets[row, context : len(text)] = text[context:]
        return inputs.to(device), targets.to(device)

    def __call__(self, model, batches, steps, token_bytes):
        """In place of upstream's evaluate_bpb: `batches` and `steps`, made from --eval-tokens, are not used."""
        import numpy as np
        import torch
        import torch.distributed as dist

        device = token_bytes.device
        nats = torch.zeros(len(self.windows), dtype=torch.float64, device=device)
        mine = range(rank() * self.rows, len(self.windows), world_size() * self.rows)
        beat = -math.inf
        with torch.no_grad():
            for first in mine:
                if time.monotonic() - beat > HEARTBEAT_SECONDS:
                    beat = time.monotonic()
                    tell(event="evaluating", done=first, total=len(self.windows))
                windows = self.windows[first : first + self.rows]
                inputs, targets = self.batch(windows, device)
                losses = model(inputs, targets, loss_reduction="none").view(self.rows, self.sequence)
                nats[first : first + len(windows)] = losses.double().sum(1)[: len(windows)]
        if dist.is_initialized():
            dist.all_reduce(nats)
        documents = np.array([window[0] for window in self.windows], dtype=np.int64)
        per_document = np.bincount(documents, weights=nats.cpu().numpy(), minlength=len(self.offset))
        return self.report(per_document)

    def report(self, nats):
        """Tell bits per byte overall and by decile, keep the nats, return the former."""
        import numpy as np

        def bits(chosen):
            size = self.bytes[chosen].sum()
            return float(nats[chosen].sum() / (math.log(2) * size)) if size else None

        if rank() == 0:
            write_whole(self.nats_file, lambda path: np.array(nats).tofile(path))
        bpb = bits(np.ones(len(nats), dtype=bool))
        tell(event="evaluation", bpb=bpb, bpb_by_decile=[bits(self.decile == decile) for decile in range(10)])
        return bpb if bpb is not None else float("inf")


# --- checkpoints ------------------------------------------------------------------------------------------------------


def save_checkpoint(checkpoint_dir, step, model_data, optimizer_data, meta_data, rank=0):
    """In place of upstream's: every file appears whole, and the metadata only when all ranks have written theirs."""
    import torch
    import torch.distributed as dist

    tell(event="saving", step=step)
    folder = Path(checkpoint_dir)
    folder.mkdir(parents=True, exist_ok=True)
    if optimizer_data is not None:
        write_whole(folder / f"optim_{step:06d}_rank{rank:d}.pt", lambda path: torch.save(optimizer_data, path))
    if rank == 0:
        write_whole(folder / f"model_{step:06d}.pt", lambda path: torch.save(model_data, path))
    if dist.is_initialized():
        dist.barrier()
    if rank != 0:
        return
    names = [f"model_{step:06d}.pt"]
    if optimizer_data is not None:
        names += [f"optim_{step:06d}_rank{other:d}.pt" for other in range(world_size())]
    files = {name: (folder / name).stat().st_size for name in names}
    text = json.dumps({**meta_data, MARKER: {"ranks": world_size(), "files": files}}, indent=2)
    write_whole(folder / f"meta_{step:06d}.json", lambda path: Path(path).write_text(text, encoding="utf-8"))
    tell(event="saved", step=step)


# --- the script -------------------------------------------------------------------------------------------------------


def calls(tree, name):
    """Whether code below `tree` calls something by that name."""
    return any(isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id == name for n in ast.walk(tree))


def save_first(tree):
    """Move saving before the evaluations of the training loop, and let a request to stop save and end it.

    The statement `if last_step or ...: save_checkpoint(...)` goes before the first `if` that evaluates; its condition holds
    as well when somebody asked to stop, and the process then ends with status 75.
    """
    for loop in (node for node in tree.body if isinstance(node, ast.While)):
        save = next((s for s in loop.body if isinstance(s, ast.If) and calls(s, "save_checkpoint")), None)
        first = next((i for i, s in enumerate(loop.body) if isinstance(s, ast.If) and calls(s, "evaluate_bpb")), None)
        if save is None or first is None or loop.body.index(save) < first:
            continue
        loop.body.remove(save)
        asked, leave = ast.parse(
            f"{MARKER}_stop = {MARKER}_stopping()\nif {MARKER}_stop: raise SystemExit({STOPPED})"
        ).body
        stop = ast.Name(f"{MARKER}_stop", ast.Load())
        save.test = ast.copy_location(ast.BoolOp(ast.Or(), [save.test, stop]), save.test)
        loop.body[first:first] = [ast.copy_location(asked, save), save, ast.copy_location(leave, save)]
        return ast.fix_missing_locations(tree)
    raise SystemExit("The training loop of this nanochat is not what the overlay expects: run the check.")


def run_train(source, arguments):
    """scripts/base_train.py as `__main__`, with `save_first`."""
    path = source.joinpath(*TRAIN.split(".")).with_suffix(".py")
    script = types.ModuleType("__main__")
    script.__file__ = str(path)
    script.__dict__[f"{MARKER}_stopping"] = Stop()
    sys.argv = [str(path), *arguments]
    sys.modules["__main__"] = script
    exec(compile(save_first(ast.parse(path.read_text(encoding="utf-8"))), str(path), "exec"), script.__dict__)


def main(module, arguments):
    """Hook nanochat in the current folder, then run its module."""
    settings = json.loads(Path(os.environ[SETTINGS]).read_text(encoding="utf-8"))
    source = Path.cwd()
    sys.path[0] = str(source)  # in place of this file's folder: nanochat has its own top-level `tasks` and `scripts`
    guard_process()
    if not settings["compile"]:
        leave_out_compile()
    hook_start(settings)
    hook_data(settings)
    importlib.import_module("nanochat.loss_eval").evaluate_bpb = HoldoutEvaluation(settings)
    importlib.import_module("nanochat.checkpoint_manager").save_checkpoint = save_checkpoint
    run_train(source, arguments)


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] != TRAIN:
        raise SystemExit(f"usage: {SETTINGS}=settings.json python overlay.py {TRAIN} [arguments]")
    main(sys.argv[1], sys.argv[2:])
