"""Processes that are killed, and services that go away and come back."""

import signal
import time

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
