"""What a person cancels."""

import signal
import time

from tests.chaos.harness.faults.kind import Harm, kind, send


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


@kind("the experiment's process is killed, then a person cancels it, and later starts it again")
def dead_parent_cancelled(harm: Harm) -> None:
    run = harm.in_training(until=0.1)
    send(harm.server.processes_of(harm.run.id), signal.SIGKILL)
    harm.run.wait("the end of the experiment", lambda: harm.ended(harm.run.id) in ("CRASHED", "SCHEDULED"), 60)
    state = {"type": "CANCELLING", "name": "Cancelling"}
    harm.server.ask("POST", f"/flow_runs/{harm.run.id}/set_state", {"state": state, "force": True}, 30)
    cancelled, trainer = time.time(), harm.server.trainer(run)
    send(trainer, signal.SIGSTOP)  # it must not come to its end before the cancellation reaches it
    harm.run.wait("the training's cancellation", lambda: harm.ended(run).startswith("CANCEL"), 90)
    send(trainer, signal.SIGCONT)
    harm.run.wait("the trainer's end", lambda: not harm.server.trainer(run), 90)
    harm.moment += f", trainer gone {time.time() - cancelled:.0f} s after it was cancelled"
    harm.run.wait("the state Cancelled", lambda: harm.ended(harm.run.id) == harm.ended(run) == "CANCELLED", 150)
    time.sleep(45 if harm.rig.quick else 150)  # the reaper looks twice and leaves them alone
    if (harm.ended(harm.run.id), harm.ended(run)) != ("CANCELLED", "CANCELLED"):
        raise AssertionError("a run that a person cancelled was set going again")
    harm.run.start()
