"""One measured run, in a process of its own."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.tokens import usual
from tasks.records.layout import ArmFolder, PoolFolder
from tasks.store.artifact import sha256_file
from tasks.store.root import Root
from tasks.tokens.pack import ROWS, pack_arm

POOL, ARM = "pool-benchmark", "arm-benchmark"


@dataclass(frozen=True)
class Run:
    """One measured run: tokens read (BOS included), seconds, and what it made."""

    tokens: int
    rows: int
    digest: str
    wall: float
    cpu: float
    peak_mib: float


def run_usual(folder: Path, sequence_length: int, cores: int) -> Run:
    """The usual loader over the arm, on the first `cores` cores."""
    root = _begin(folder, cores)
    shards = sorted(root.path(ArmFolder(ARM).text).glob("shard_*.parquet"))[:-1]
    start, cpu = time.perf_counter(), time.process_time()
    rows, tokens, digest = usual.pack(shards, root.path(PoolFolder(POOL).tokenizer), sequence_length)
    return Run(tokens, rows, digest, time.perf_counter() - start, time.process_time() - cpu, _peak_mib())


def run_ours(folder: Path, sequence_length: int, cores: int) -> Run:
    """pack_arm over the arm, on the first `cores` cores; what it made is removed, so that the next round makes it anew."""
    root = _begin(folder, cores)
    start, cpu = time.perf_counter(), time.process_time()
    artifact = pack_arm(root, ARM, POOL, sequence_length, "crop", workers=cores)
    wall, cpu, peak = time.perf_counter() - start, time.process_time() - cpu, _peak_mib()
    facts, digest = artifact.facts, sha256_file(artifact.path / ROWS)
    root.remove(artifact.name)
    return Run(facts["tokens"], facts["rows"], digest, wall, cpu, peak)


def _begin(folder: Path, cores: int) -> Root:
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    return Root(folder)


def _peak_mib() -> float:
    """Peak resident memory of this process alone; getrusage's would count the parent's at the fork."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
