"""Starting nanochat's ranks on this host: command line, settings of the overlay, processes, their output.

The ranks belong to the caller's process group and get SIGTERM when the caller dies; the overlay then saves a checkpoint.
"""

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.environment import Environment, child_environment
from tasks.engines.nanochat.plan import UpstreamPlan
from tasks.records.layout import LOG
from tasks.spec import Experiment
from tasks.store.artifact import write_atomic

OVERLAY = Path(__file__).with_name("overlay.py")
SETTINGS_VARIABLE = "FABRATING_OVERLAY"
GRACE = 45.0
"""Seconds between SIGTERM and SIGKILL: a checkpoint takes up to 30."""
STACKS_SECONDS = 2.0
DTYPES = {"bf16": "bfloat16", "fp8": "bfloat16", "fp32": "float32"}


def command(
    environment: Environment,
    experiment: Experiment,
    plan: UpstreamPlan,
    run: str,
    *,
    cpu: bool,
    holdout_tokens: int,
    resume: int,
) -> list[str]:
    """The command line of one rank. `resume`: the step to go on from, 0 for none."""
    training = experiment.training
    options: dict[str, Any] = {
        "--run": "dummy",  # no W&B run of its own: our metrics are forwarded under the run's one id
        "--device-type": "cpu" if cpu else "cuda",
        "--depth": training.depth,
        "--max-seq-len": training.sequence_length,
        "--window-pattern": training.window_pattern,
        "--num-iterations": plan.iterations,
        "--target-param-data-ratio": f"{plan.ratio:.6g}",
        "--device-batch-size": plan.micro_rows,
        "--total-batch-size": plan.batch_tokens,
        "--eval-every": training.eval_every,
        "--eval-tokens": holdout_tokens,
        "--core-metric-every": -1,
        "--sample-every": -1,
        "--save-every": training.save_every,
        "--model-tag": run,
    }
    if resume:
        options["--resume-from-step"] = resume
    words = [f"{name}={value}" for name, value in options.items()]
    return [
        str(environment.python),
        str(OVERLAY),
        contract.TRAIN_SCRIPT,
        *words,
        *(["--fp8"] if training.precision == "fp8" else []),
    ]


def write_settings(
    path: Path,
    experiment: Experiment,
    plan: UpstreamPlan,
    *,
    shards: Sequence[Path],
    evaluation: Path,
    bos: int,
    cpu: bool,
) -> None:
    """The overlay's settings: the last of `shards` is the holdout's."""
    settings = {
        "shards": [str(shard) for shard in shards[:-1]],
        "validation": str(shards[-1]),
        "evaluation": str(evaluation),
        "bos": bos,
        "rows": plan.micro_rows,
        "sequence": experiment.training.sequence_length,
        "seed": experiment.seed,
        "compile": experiment.training.compile and not cpu,
        "wandb": None,
        "state": str(path.parent),
    }
    write_atomic(path, json.dumps(settings, indent=1))


def variables(base: Path, settings: Path, precision: str, inherited: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of every rank."""
    return child_environment(inherited) | {
        contract.BASE_VARIABLE: str(base),
        contract.DTYPE_VARIABLE: DTYPES[precision],
        SETTINGS_VARIABLE: str(settings),
        "PYTHONUNBUFFERED": "1",
        "TORCHINDUCTOR_CACHE_DIR": str(base / "inductor"),
    }


@dataclass
class Ranks:
    """The processes of a run. Each appends to its own log: `log.txt` the first, `log.rank1.txt` and so on the others."""

    processes: list[subprocess.Popen[bytes]]
    logs: list[Path]
    _read: int = field(default=0)
    _torn: bytes = field(default=b"")

    @classmethod
    def start(
        cls,
        words: Sequence[str],
        count: int,
        source: Path,
        environment: Mapping[str, str],
        folder: Path,
        inherit: Sequence[int] = (),
    ) -> "Ranks":
        """Start `count` ranks in `source`. `inherit`: file descriptors (locks) that stay held while a rank lives."""
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        logs = [folder / (LOG if rank == 0 else f"log.rank{rank}.txt") for rank in range(count)]
        ranks = cls([], logs, logs[0].stat().st_size if logs[0].exists() else 0)
        try:
            for rank, log in enumerate(logs):
                own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count), **shared}
                with log.open("ab") as output:
                    ranks.processes.append(
                        subprocess.Popen(
                            words,
                            cwd=source,
                            env={**environment, **(own if count > 1 else {})},
                            stdin=subprocess.DEVNULL,
                            stdout=output,
                            stderr=output,
                            pass_fds=inherit,
                        )
                    )
        except BaseException:
            ranks.end(0)
            raise
        return ranks

    def lines(self) -> Iterator[str]:
        """Whole lines that the first rank has printed since the last call."""
        with self.logs[0].open("rb") as log:
            log.seek(self._read)
            data = log.read()
        self._read += len(data)
        *whole, self._torn = (self._torn + data).split(b"\n")
        for line in whole:
            yield line.decode(errors="replace")

    def alive(self) -> bool:
        """Whether every rank still runs."""
        return all(process.poll() is None for process in self.processes)

    def status(self) -> int | None:
        """None while one runs and none has failed; else the status of the first that failed, or 0."""
        statuses = [process.poll() for process in self.processes]
        failed = next((status for status in statuses if status), None)
        if failed is not None:
            return failed
        return None if None in statuses else 0

    def stacks(self) -> list[str]:
        """What each rank is doing: the tail of its log after asking for its stacks (see the overlay)."""
        places = [log.stat().st_size for log in self.logs]
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGUSR1)
        time.sleep(STACKS_SECONDS)
        return [_from(log, place) for log, place in zip(self.logs, places, strict=True)]

    def end(self, grace: float = GRACE) -> None:
        """SIGTERM to those that still run (they save a checkpoint), SIGKILL after `grace` seconds."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + grace
        while any(process.poll() is None for process in self.processes) and time.monotonic() < deadline:
            time.sleep(0.1)
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()

    def last_words(self) -> str:
        """The last line of the log of the first rank that failed, for a message."""
        failed = [log for process, log in zip(self.processes, self.logs, strict=True) if process.returncode]
        lines = _from((failed or self.logs)[0], 0)[-4_000:].strip().splitlines()
        return lines[-1][:300] if lines else "no output"


def _from(path: Path, place: int) -> str:
    with path.open("rb") as file:
        file.seek(place)
        return file.read().decode(errors="replace")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
