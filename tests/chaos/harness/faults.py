"""The kinds of fault. Each is a function that takes an experiment which has just been started, waits for a random moment of
it, does the harm, and returns when. It sets nothing going again, except as a service manager would, or as the person would whom
the product tells what to do.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import psutil

from infra.local import azurite, processes
from tasks.store.access import open_blobs
from tests.chaos.harness.arm import ArmRun
from tests.chaos.harness.rig import RESTART_SECONDS, Rig
from tests.chaos.harness.server import Server

Expected = Literal["completed", "refused"]


@dataclass
class Harm:
    """One experiment to inject a fault into, and what the fault noted."""

    rig: Rig
    run: ArmRun
    random: random.Random
    steps: int
    """Steps of the undisturbed training."""
    preparing: float
    """Seconds that the undisturbed preparation works."""
    reads: int
    """Ranges that it reads of the store."""
    at: float = 0.0
    moment: str = ""
    seen: int = 0
    """The newest step in the metrics at the moment of the fault."""
    finished: set[str] = field(default_factory=set)

    @property
    def server(self) -> Server:
        return self.run.server

    def ended(self, run: str) -> str:
        """The type of a run's state, "" while the server is away."""
        found = self.server.ask("GET", f"/flow_runs/{run}")
        return found["state"]["type"] if found else ""

    def strike(self, moment: str) -> None:
        """Note that the fault is injected now."""
        self.at, self.moment = time.time(), moment
        self.seen, self.finished = self.run.step(), set(self.run.stages())

    def in_preparation(self) -> str:
        """A random moment while `prepare` works; returns its run."""
        run = self.run.running("prepare")
        pause = self.random.uniform(0.0, 0.9 * self.preparing)
        time.sleep(pause)
        self.strike(f"{pause:.1f} s into prepare")
        return run

    def in_training(self, until: float = 0.8) -> str:
        """A random step of `train`, in the first `until` of them; returns its run."""
        run = self.run.running("train")
        wanted = self.random.randint(1, int(until * self.steps))
        self.run.steps_reached(wanted)
        self.strike(f"step {wanted}")
        return run

    def anywhere(self) -> None:
        """A random moment of `prepare` or `train`."""
        self.in_preparation() if self.random.random() < 0.5 else self.in_training()


Fault = Callable[[Harm], None]


@dataclass(frozen=True)
class Kind:
    """A fault by name, and the outcome that it must have. `ended_by`: words that the message of a refusal must hold."""

    name: str
    fault: Fault
    what: str
    expected: Expected = "completed"
    ended_by: str = ""
    small_disk: bool = False
    """Whether the experiment's root is a file system of its own, small enough to fill."""
    in_store: bool = False
    """Whether the experiment's root is in the blob store."""


KINDS: dict[str, Kind] = {}


def kind(what: str, **judged: Any) -> Callable[[Fault], Fault]:
    """Register a fault under its function's name; `judged`: the other fields of Kind."""

    def register(fault: Fault) -> Fault:
        name = fault.__name__.replace("_", "-")
        KINDS[name] = Kind(name, fault, what, **judged)
        return fault

    return register


def _signal(found: list[psutil.Process], number: int) -> None:
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


@kind("kill -9 of the flow process of prepare")
def prepare_killed(harm: Harm) -> None:
    _signal(harm.server.processes_of(harm.in_preparation()), signal.SIGKILL)


@kind("kill -9 of the trainer")
def trainer_killed(harm: Harm) -> None:
    _signal(harm.server.trainer(harm.in_training()), signal.SIGKILL)


@kind("SIGTERM of the trainer")
def trainer_stopped(harm: Harm) -> None:
    _signal(harm.server.trainer(harm.in_training()), signal.SIGTERM)


@kind("kill -9 of the flow process of train, which leaves the trainer behind")
def train_killed(harm: Harm) -> None:
    _signal(harm.server.flow_process(harm.in_training()), signal.SIGKILL)


@kind("kill -9 of the experiment's own process")
def experiment_killed(harm: Harm) -> None:
    harm.anywhere()
    _signal(harm.server.processes_of(harm.run.id), signal.SIGKILL)


@kind("kill -9 of the cpu worker")
def cpu_worker_killed(harm: Harm) -> None:
    harm.in_preparation()
    _restart(harm.rig, "cpu")


@kind("kill -9 of the gpu worker")
def gpu_worker_killed(harm: Harm) -> None:
    harm.in_training()
    _restart(harm.rig, "gpu")


@kind("the gpu host is gone: worker, flow and trainer killed at once, nobody left to say so")
def gpu_host_lost(harm: Harm) -> None:
    run = harm.in_training()
    found = harm.server.processes_of(run)
    harm.rig.kill("worker-gpu")
    _signal(found, signal.SIGKILL)
    time.sleep(RESTART_SECONDS)
    harm.rig.start_worker("gpu")


@kind("kill -9 of the Prefect server, back after 20 to 30 s")
def server_killed(harm: Harm) -> None:
    harm.anywhere()
    harm.rig.kill("server")
    time.sleep(harm.random.uniform(20, 30))
    harm.rig.start_server()


@kind("kill -9 of the Prefect server in mid-training, back after eleven minutes")
def server_away(harm: Harm) -> None:
    harm.in_training()
    harm.rig.kill("server")
    time.sleep(660)
    harm.rig.start_server()


@kind("PostgreSQL stopped, back after 10 to 20 s")
def database_stopped(harm: Harm) -> None:
    harm.anywhere()
    harm.rig.database.stop()
    time.sleep(harm.random.uniform(10, 20))
    harm.rig.database.start()


@kind("the store answers 503 for 15 s")
def store_busy(harm: Harm) -> None:
    _store(harm, "refuse", 15)


@kind("the store is away for a minute: 503 to everything")
def store_away(harm: Harm) -> None:
    _store(harm, "refuse", 60)


@kind("half of the connections are reset for 20 s")
def store_resets(harm: Harm) -> None:
    _store(harm, "reset", 20, share=0.5)


@kind("slow reads: 1 to 3 s before and within each answer, for 20 s")
def store_slow(harm: Harm) -> None:
    _store(harm, "slow", 20, seconds=harm.random.uniform(1, 3))


@kind("half of the bodies end short of their Content-Length, for 20 s")
def store_truncates(harm: Harm) -> None:
    _store(harm, "truncate", 20, share=0.5)


@kind("the credential is refused (403, as an expired SAS token) for 10 s")
def store_denies(harm: Harm) -> None:
    _store(harm, "deny", 10)


@kind("a blob is written anew after it was indexed", expected="refused", ended_by="has changed since it was indexed")
def blob_changed(harm: Harm) -> None:
    with harm.rig.proxy.trouble("slow", seconds=0.4):  # time to do it between the index and the text
        harm.run.wait("the index", lambda: "index" in harm.run.stages())
        harm.strike("index complete, text not read")
        _, container, prefix = harm.run.source.replace("://", "/").split("/", 2)
        azurite.upload(harm.rig.blob_port, container, prefix, _other_content(harm), harm.rig.stack.store_key)
        harm.run.wait("its end", lambda: (harm.run.state or {}).get("type") in ("FAILED", "COMPLETED"))


@kind("a byte of the packed rows is flipped between two attempts")
def packed_byte(harm: Harm) -> None:
    _signal(harm.server.flow_process(harm.in_training()), signal.SIGKILL)
    (path,) = harm.run.made("arms/*/packed/*/rows.bin")
    with path.open("r+b") as file:
        place = harm.random.randrange(path.stat().st_size)
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << harm.random.randrange(8)]))
    harm.moment += f", byte {place}"


@kind("a checkpoint is cut short between two attempts")
def checkpoint_short(harm: Harm) -> None:
    run = harm.in_training()
    harm.run.wait("a checkpoint", lambda: harm.run.made("runs/*/checkpoints/step_*/manifest.json"))
    everything = harm.server.processes_of(run)
    harm.strike(harm.moment)
    _signal(everything, signal.SIGKILL)  # with its trainer: the newest checkpoint is the one that is cut
    newest = harm.run.made("runs/*/checkpoints/step_*/model.pt")[-1]
    os.truncate(newest, harm.random.randrange(newest.stat().st_size))
    harm.moment += f", {newest.parent.name}"


@kind("a text shard is truncated before it is packed")
def shard_short(harm: Harm) -> None:
    run = harm.run.running("prepare")
    harm.run.wait("the text", lambda: harm.run.made("arms/*/text/manifest.json"))
    _signal(harm.server.processes_of(run), signal.SIGKILL)
    harm.strike("text complete, rows not packed")
    harm.finished.discard("text")  # it is damaged: reading it again is what must happen
    shard = harm.random.choice(harm.run.made("arms/*/text/shard_*.parquet"))
    os.truncate(shard, harm.random.randrange(shard.stat().st_size))
    harm.moment += f", {shard.name}"


@kind("the disk is full for 20 s of the training", small_disk=True)
def disk_full(harm: Harm) -> None:
    harm.in_training()
    with _full(harm.run.root):
        time.sleep(20)


@kind(
    "the disk is full from a moment of the preparation on, until it has stopped; then there is room",
    small_disk=True,
)
def disk_full_early(harm: Harm) -> None:
    run = harm.in_preparation()
    with _full(harm.run.root):
        harm.run.wait("a stop", lambda: (harm.run.state or {}).get("type") in ("FAILED", "COMPLETED"), 120)
        message = (harm.run.state or {}).get("message") or ""
        harm.moment += f", said: {message.rsplit('Error: ', 1)[-1][:160]}"
        if "free" not in message.lower():
            raise AssertionError(f"{run} does not say what is to be done about the disk: {message}")
    with contextlib.suppress(TimeoutError):  # what was stopped by the check beforehand is a person's to start
        harm.run.wait("a rerun", lambda: (harm.run.state or {}).get("type") != "FAILED", harm.run.patience)
        return
    harm.run.start()


@kind("cancelled by a person in mid-training, then started again by a person")
def cancelled(harm: Harm) -> None:
    run = harm.in_training(until=0.1)  # it must not come to its end before it hears of it
    state = {"type": "CANCELLING", "name": "Cancelling"}
    harm.server.ask("POST", f"/flow_runs/{harm.run.id}/set_state", {"state": state, "force": True}, 30)
    harm.run.wait("the trainer's end", lambda: not harm.server.trainer(run), 60)
    harm.moment += f", trainer gone in {time.time() - harm.at:.0f} s"
    if harm.run.made("runs/*/result/manifest.json"):
        raise AssertionError("the training had finished by itself: nothing was cancelled")
    harm.run.wait("the state Cancelled", lambda: (harm.run.state or {}).get("type") == "CANCELLED", 60)
    time.sleep(45 if harm.rig.quick else 150)  # the reaper looks twice and leaves it alone
    if (harm.run.state or {}).get("type") != "CANCELLED":
        raise AssertionError("a run that a person cancelled was set going again")
    harm.run.start()


@kind("the training alone is cancelled by a person, then the experiment started again by a person")
def training_cancelled(harm: Harm) -> None:
    run = harm.in_training(until=0.1)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    harm.server.ask("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True}, 30)
    harm.run.wait(
        "the end of both", lambda: harm.ended(run) == "CANCELLED" and harm.ended(harm.run.id) == "FAILED", 120
    )
    time.sleep(45 if harm.rig.quick else 150)  # the reaper looks twice and leaves them alone
    if (harm.ended(run), harm.ended(harm.run.id)) != ("CANCELLED", "FAILED"):
        raise AssertionError("a training that a person cancelled was set going again")
    harm.run.start()


@kind("the gpu host cannot start the training, until a person mends it after the runs were given up")
def never_started(harm: Harm) -> None:
    found = harm.server.ask("GET", "/deployments/name/train/train", patience=30)
    path, variables = f"/deployments/{found['id']}", found["job_variables"] or {}
    harm.strike("before train")
    harm.server.ask("PATCH", path, {"job_variables": variables | {"command": "/no/such/python -m prefect.engine"}}, 30)

    def ends() -> int:
        states = harm.server.ask("GET", f"/flow_run_states/?flow_run_id={harm.run.id}") or []
        return sum(state["type"] in ("FAILED", "CRASHED") for state in states)

    try:
        harm.run.wait("three reruns", lambda: ends() > 3, 360 if harm.rig.quick else 1_200)
        time.sleep(45 if harm.rig.quick else 150)
    finally:
        harm.server.ask("PATCH", path, {"job_variables": variables}, 30)
    harm.moment += f", {ends()} attempts"
    if ends() != 4:
        raise AssertionError(f"{ends()} attempts at a run that never starts")
    harm.run.start()


@kind("the packed rows are damaged in the store, and the host's copy of them is lost", in_store=True)
def store_damaged(harm: Harm) -> None:
    run = harm.in_training()
    _signal(harm.server.processes_of(run) + harm.server.processes_of(harm.run.id), signal.SIGKILL)
    (rows,) = harm.run.made("arms/*/packed/*/rows.bin")
    data = bytearray(rows.read_bytes())
    place = harm.random.randrange(len(data))
    data[place] ^= 1 << harm.random.randrange(8)
    open_blobs(harm.run.url).write(rows.relative_to(harm.run.root).as_posix(), bytes(data))
    shutil.rmtree(rows.parent)
    harm.moment += f", byte {place}"


@kind("the gpu host is frozen, as a suspended machine, until a second host has taken the run over", in_store=True)
def host_frozen(harm: Harm) -> None:
    run = harm.in_training(until=0.3)
    frozen = harm.server.processes_of(run)
    _signal(frozen, signal.SIGSTOP)
    second = harm.rig.cache("second") / harm.run.root.name
    harm.rig.start_worker("gpu", "second")
    try:
        harm.run.wait("the second host to train", lambda: list(second.glob("runs/*/metrics.jsonl")), 420)
        _signal(frozen, signal.SIGCONT)
        thawed = time.time()
        harm.run.wait("the first host's end", lambda: not any(map(_lives, frozen)), 120)
        harm.moment += f", stopped {time.time() - thawed:.0f} s after it went on"
        (log,) = harm.run.made("runs/*/log.txt")
        if "was taken over by process" not in log.read_text():
            raise AssertionError(f"the first host does not say why it stopped: {log}")
        harm.run.wait("the end", lambda: (harm.run.state or {}).get("type") == "COMPLETED", 240)
    finally:
        _signal(frozen, signal.SIGKILL)
        harm.rig.kill("worker-gpu-second")


@kind("everything is stopped for 150 s, as on a laptop that sleeps: server, workers, runs")
def asleep(harm: Harm) -> None:
    run = harm.in_training(until=0.3)
    workers = {name: pid for name, pid in harm.rig.pids.items() if name.startswith("worker")}
    trainer = harm.server.trainer(run)
    everything = processes.members(harm.rig.mark)
    _signal(everything, signal.SIGSTOP)
    time.sleep(150)
    _signal(everything, signal.SIGCONT)
    harm.run.wait("the end", lambda: harm.ended(harm.run.id) in ("COMPLETED", "FAILED", "CRASHED"), 400)
    if told := [change for change in harm.run.changes() if change.type in ("CRASHED", "FAILED")]:
        raise AssertionError(f"what lived was given up: {told[0]}")
    if gone := [name for name, pid in workers.items() if not processes.belongs(pid, harm.rig.mark)]:
        raise AssertionError(f"{', '.join(gone)} did not outlive the sleep")
    harm.moment += f", {len(everything)} processes, trainer {trainer[0].pid}"


@kind("the machine is off for three hours in mid-training: nothing is left but the database, three hours older")
def hours_off(harm: Harm) -> None:
    harm.in_training()
    harm.rig.power_off()
    harm.rig.database.age(3)
    began = time.monotonic()
    harm.rig.power_on()
    harm.moment += f", up again in {time.monotonic() - began:.0f} s"
    late = harm.server.ask("POST", "/flow_runs/filter", {"flows": {"name": {"any_": ["maintenance"]}}}, 60)
    if waiting := [run for run in late if run["state"]["type"] in ("SCHEDULED", "PENDING")]:
        raise AssertionError(f"{len(waiting)} runs of the reaper catch up")


@kind("the experiment's process is killed, then a person cancels it, and later starts it again")
def dead_parent_cancelled(harm: Harm) -> None:
    run = harm.in_training(until=0.1)
    _signal(harm.server.processes_of(harm.run.id), signal.SIGKILL)
    harm.run.wait("the end of the experiment", lambda: harm.ended(harm.run.id) in ("CRASHED", "SCHEDULED"), 60)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    harm.server.ask("POST", f"/flow_runs/{harm.run.id}/set_state", {"state": state, "force": True}, 30)
    cancelled = time.time()
    harm.run.wait("the trainer's end", lambda: not harm.server.trainer(run), 90)
    harm.moment += f", trainer gone {time.time() - cancelled:.0f} s after it was cancelled"
    harm.run.wait("the state Cancelled", lambda: harm.ended(harm.run.id) == harm.ended(run) == "CANCELLED", 150)
    time.sleep(45 if harm.rig.quick else 150)  # the reaper looks twice and leaves them alone
    if (harm.ended(harm.run.id), harm.ended(run)) != ("CANCELLED", "CANCELLED"):
        raise AssertionError("a run that a person cancelled was set going again")
    harm.run.start()


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@contextlib.contextmanager
def _full(folder: Path) -> Iterator[None]:
    """Fill the file system of a folder."""
    filler = folder / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    try:
        yield
    finally:
        filler.unlink()


@contextlib.contextmanager
def small_disk(folder: Path, size: str = "1g") -> Iterator[None]:
    """A file system of `size` (preparing needs half a gigabyte free) in memory, mounted at `folder`. Raises PermissionError if that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise PermissionError(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)


def _restart(rig: Rig, pool: str) -> None:
    rig.kill(f"worker-{pool}")
    time.sleep(RESTART_SECONDS)
    rig.start_worker(pool)


def _store(harm: Harm, trouble: str, duration: float, **options: float) -> None:
    """Trouble with the store from a random read of the preparation on; it counts from the first request that meets it."""
    wanted, since = harm.random.randint(1, harm.reads // 2), harm.run.began

    def read_enough() -> bool:
        return sum(answer.at >= since and answer.read is not None for answer in list(harm.rig.proxy.answers)) >= wanted

    harm.run.wait(f"read {wanted}", read_enough, pause=0.01)
    began = time.time()
    with harm.rig.proxy.trouble(trouble, **options):
        with contextlib.suppress(TimeoutError):
            harm.run.wait("a request", lambda: harm.rig.proxy.met(began) or harm.run.child("train"), 30)
        harm.strike(f"read {wanted} of {harm.reads}")
        time.sleep(duration)
    met = len(harm.rig.proxy.met(began))
    harm.moment += f", {met} requests met it"
    if not met:
        raise AssertionError("no request met the trouble: it came too late")


def _other_content(harm: Harm) -> Path:
    """The sample with one file replaced by a copy of another: valid, and not what was indexed."""
    folder = harm.rig.home / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = sorted((harm.rig.home / "sample").rglob("*.parquet"))
    for path in files:
        shutil.copy(path, folder / path.name)
    chosen, other = harm.random.sample(files, 2)
    shutil.copy(other, folder / chosen.name)
    harm.moment += f", {chosen.name}"
    return folder
