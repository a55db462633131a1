"""Processes that are killed, and services that go away and come back."""

import json
import shutil
import signal
import time

import psutil

from flows.alive import TAG
from infra.local import processes
from tests.chaos.harness.faults.kind import Harm, kind, send
from tests.chaos.harness.rig import RESTART_SECONDS, Rig


@kind("kill -9 of the flow process of prepare")
def prepare_killed(harm: Harm) -> None:
    send(harm.server.processes_of(harm.in_preparation()), signal.SIGKILL)


@kind("kill -9 of the trainer")
def trainer_killed(harm: Harm) -> None:
    send(harm.server.trainer(harm.in_training()), signal.SIGKILL)


@kind("SIGTERM of the trainer")
def trainer_stopped(harm: Harm) -> None:
    send(harm.server.trainer(harm.in_training()), signal.SIGTERM)


@kind("kill -9 of the process that trains runs of a comparison one after another, in the middle of one")
def warm_trainer_killed(harm: Harm) -> None:
    harm.run.wait("the end", lambda: (harm.run.state or {}).get("type") == "COMPLETED", 240)
    (folder,) = (path.parent for path in harm.run.made("runs/*/metrics.jsonl"))
    shutil.rmtree(folder)  # trained again, with another run next in line
    alone = harm.server.ask("GET", f"/flow_runs/{harm.run.child('train')}", patience=30)["parameters"]
    deployment = harm.server.ask("GET", "/deployments/name/train/train", patience=30)["id"]
    runs = []
    for seed in (alone["seed"], alone["seed"] + 1):
        body = {
            "parameters": alone | {"seed": seed, "comparison": "chaos"},
            "state": {"type": "SCHEDULED"},
            "tags": [TAG],
        }
        runs.append(harm.server.ask("POST", f"/deployments/{deployment}/create_flow_run", body, patience=60)["id"])
        if len(runs) == 1:
            harm.run.wait("its first step", lambda: (folder / "metrics.jsonl").is_file())
    wanted = harm.random.randint(1, harm.steps // 2)
    harm.run.steps_reached(wanted)
    harm.strike(f"step {wanted}")
    trainer = psutil.Process(json.loads((folder / ".lock").read_text())["pid"])
    if "tasks.engines.builtin.trainer" not in " ".join(trainer.cmdline()):
        raise AssertionError(f"the run has a process of its own: {trainer.cmdline()}")
    send([trainer], signal.SIGKILL)
    harm.run.wait("both ends", lambda: all(harm.ended(run) == "COMPLETED" for run in runs), 400)
    (other,) = (path.parent for path in harm.run.made("runs/*/result") if path.parent != folder)
    pids = {json.loads((each / ".lock").read_text())["pid"] for each in (folder, other)}
    if trainer.pid in pids or len(pids) != 1:
        raise AssertionError(f"after the trainer {trainer.pid} was killed, {pids} trained")
    shutil.rmtree(other)  # the experiment's own run is compared


@kind("kill -9 of the flow process of train, which leaves the trainer behind")
def train_killed(harm: Harm) -> None:
    send(harm.server.flow_process(harm.in_training()), signal.SIGKILL)


@kind("kill -9 of the experiment's own process")
def experiment_killed(harm: Harm) -> None:
    harm.anywhere()
    send(harm.server.processes_of(harm.run.id), signal.SIGKILL)


@kind("kill -9 of the cpu worker")
def cpu_worker_killed(harm: Harm) -> None:
    harm.in_preparation()
    _restart(harm.rig, "cpu")


@kind("kill -9 of the gpu worker")
def gpu_worker_killed(harm: Harm) -> None:
    harm.in_training()
    _restart(harm.rig, "gpu")


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


def _restart(rig: Rig, pool: str) -> None:
    rig.kill(f"worker-{pool}")
    time.sleep(RESTART_SECONDS)
    rig.start_worker(pool)


@kind("everything is stopped for 150 s, as on a laptop that sleeps: server, workers, runs")
def asleep(harm: Harm) -> None:
    run = harm.in_training(until=0.3)
    workers = {name: pid for name, pid in harm.rig.pids.items() if name.startswith("worker")}
    trainer = harm.server.trainer(run)
    everything = processes.members(harm.rig.mark)
    send(everything, signal.SIGSTOP)
    time.sleep(150)
    send(everything, signal.SIGCONT)
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
