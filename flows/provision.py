"""A bare SSH host becomes a worker, and a worker a bare host again."""

from pathlib import Path

from prefect import flow

from flows.deployed import as_deployed, named
from tasks.hosts import report, steps
from tasks.hosts.environment import lock_file
from tasks.hosts.hostkeys import installation_folder
from tasks.hosts.provision import STEPS, Setup
from tasks.hosts.service import secrets
from tasks.hosts.ssh import Remote
from tasks.hosts.wheel import build_wheel
from tasks.records.cost import estimate_cost
from tasks.records.scaling import DEFAULT_RATIO, ModelShape, tokens_at
from tasks.spec import Host, Line, Training
from tasks.steps import Sealed, key, show_markdown


def cost_of_d20(host: Host, gpu: str | None) -> report.Cost:
    """What training depth 20 on nanochat's default budget takes on a host's GPUs."""
    training = Training(
        depth=20, gpus=max(host.gpus, 1), dollars_per_gpu_hour=host.dollars_per_hour / max(host.gpus, 1)
    )
    tokens = tokens_at(DEFAULT_RATIO, ModelShape.of_depth(20))
    cost = estimate_cost(training, tokens, device=gpu or "cpu")
    return report.Cost(f"d20, {tokens / 1e9:.1f} B tokens", cost.hours, cost.dollars, cost.source)


@flow(name="provision", flow_run_name=named("{host.name}"))
@as_deployed
def gpu_host(host: Host, wheel: Line | None = None) -> dict[str, object]:
    """Turn a host with an SSH server into a worker. Running it again changes only what is not as it should be.

    Secrets (storage credentials, WANDB_API_KEY, PREFECT_API_AUTH_STRING, ...) are taken from the environment of the machine
    that runs this and written to a file on the host that only its account can read.

    Args:
        host: Address, account and key; what is installed there; how its worker reaches the Prefect server.
        wheel: FabRating's package to install there; empty: built from the checkout that this runs from.
    """
    package = Path(wheel) if wheel else build_wheel(installation_folder() / "wheels")
    if not host.python_environment:
        lock_file()
    with Remote(host) as remote:
        facts = steps.look(host.name, Sealed(remote), host)
        setup = Setup(host, remote, facts, package, secrets())
        outcomes = [steps.provision_step(host.name, step, Sealed(setup)) for step in STEPS]
        outcomes.append(steps.worker_online(host.name, host.work_pool, Sealed(setup)))
        setup.facts = steps.look(host.name, Sealed(remote), host)
        notes = list(remote.notes)
    cost = cost_of_d20(host, facts.gpus[0].name if facts.gpus else None)
    show_markdown(key("host", host.name), report.provisioned(setup, outcomes, notes, [cost]), "What is on the host")
    return {"host": host.name, "changed": [outcome.step for outcome in outcomes if outcome.changed]}


@flow(name="provision", flow_run_name=named("remove-{host.name}"))
@as_deployed
def remove_host(host: Host, artifacts: bool = False, force: bool = False) -> dict[str, object]:
    """Undo provisioning: the worker, its secrets and environments, the tunnel. Debian packages stay.

    Args:
        host: The host as it was provisioned.
        artifacts: Delete the artifacts on the host's own disk, too.
        force: Remove it even while a run is active there, which is ended; a host that is gone is forgotten.
    """
    with Remote(host) as remote:
        outcomes = steps.remove(host.name, Sealed(remote), host, artifacts, force)
    outcomes.append(steps.forget_worker(host.name, host.work_pool))
    show_markdown(key("host", host.name), report.removed(host, outcomes), "What was removed from the host")
    return {"host": host.name, "changed": [outcome.step for outcome in outcomes if outcome.changed]}
