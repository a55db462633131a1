"""Hosts that are lost, frozen, broken, or two at once."""

import os
import signal
import subprocess
import sys
import time

import psutil

from tests.chaos.harness.faults.kind import Harm, kind, send
from tests.chaos.harness.rig import RESTART_SECONDS


@kind("the gpu host is gone: worker, flow and trainer killed at once, nobody left to say so")
def gpu_host_lost(harm: Harm) -> None:
    run = harm.in_training()
    found = harm.server.processes_of(run)
    harm.rig.kill("worker-gpu")
    send(found, signal.SIGKILL)
    time.sleep(RESTART_SECONDS)
    harm.rig.start_worker("gpu")


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


@kind("the gpu host is frozen, as a suspended machine, until a second host has taken the run over", in_store=True)
def host_frozen(harm: Harm) -> None:
    run = harm.in_training(until=0.3)
    frozen = harm.server.processes_of(run)
    send(frozen, signal.SIGSTOP)
    second = harm.rig.cache("second") / harm.run.root.name
    harm.rig.start_worker("gpu", "second")
    try:
        harm.run.wait("the second host to train", lambda: list(second.glob("runs/*/metrics.jsonl")), 420)
        send(frozen, signal.SIGCONT)
        thawed = time.time()
        harm.run.wait("the first host's end", lambda: not any(map(_lives, frozen)), 120)
        harm.moment += f", stopped {time.time() - thawed:.0f} s after it went on"
        (log,) = harm.run.made("runs/*/log.txt")
        if "was taken over by process" not in log.read_text():
            raise AssertionError(f"the first host does not say why it stopped: {log}")
        harm.run.wait("the end", lambda: (harm.run.state or {}).get("type") == "COMPLETED", 240)
    finally:
        send(frozen, signal.SIGKILL)
        harm.rig.kill("worker-gpu-second")


@kind("a second gpu host is asked for the same training on a busy machine, then the first one is killed", in_store=True)
def two_hosts(harm: Harm) -> None:
    run = harm.in_training(until=0.2)
    parameters = harm.server.ask("GET", f"/flow_runs/{run}", patience=30)["parameters"]
    harm.rig.start_worker("gpu", "second")
    load = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(os.cpu_count() or 2)]
    try:
        second = harm.server.start("train/train", parameters)
        harm.run.wait("the second host to take it up", lambda: harm.ended(second) in ("RUNNING", "COMPLETED"), 300)
        time.sleep(harm.random.uniform(2, 20))
        harm.strike(f"step {harm.run.step()}, the second host {harm.ended(second).lower()}")
        send(harm.server.processes_of(run), signal.SIGKILL)
        harm.run.wait("both", lambda: {harm.ended(harm.run.id), harm.ended(second)} == {"COMPLETED"}, 480)
    finally:
        for process in load:
            process.kill()
        harm.rig.kill("worker-gpu-second")


def _lives(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
