"""Provisioning in order: each step is checked, applied only when the check fails, and checked again.

A step leaves its recipe (a fingerprint of what it was made from) in `folder/state` on the host when it is through, so that
a second run changes nothing and a run that was cut goes on where it stopped. Everything lies in one folder on the host:

    .fabrating  venv/  wheels/  nanochat/  state/  prefect/  root/  cache/  worker.sh  worker.env  secrets.env

`.fabrating` marks the folder as ours. One that holds other things is refused, and nothing is removed from it.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.hosts import environment, service
from tasks.hosts.facts import Facts, identify, require, script
from tasks.hosts.machine import LinkError
from tasks.hosts.ssh import Remote
from tasks.spec import Host
from tasks.spec.training import MEASURED
from tasks.store.artifact import fingerprint, sha256_file

STEPS = ("packages", "environment", "fabrating", "attention", "secrets", "nanochat", "smoke", "way-back", "worker")
WAY_BACK_SECONDS = 45
RECONNECT_SECONDS = 15
SMOKE_SECONDS = 1_200


@dataclass(frozen=True)
class Outcome:
    """What a step did: `changed` is False when the host was so already."""

    step: str
    changed: bool
    text: str
    seconds: float


@dataclass
class Setup:
    """A host on its way to a worker: its parameters, the connection, what was found, the package to install, secrets.

    `unreached` says what became of Flash Attention where the network failed: enough for this run, and the next one tries again.
    """

    host: Host
    remote: Remote
    facts: Facts
    wheel: Path
    secrets: Mapping[str, str]
    probed: dict[str, Any] = field(default_factory=dict)
    unreached: str | None = None

    @property
    def folder(self) -> str:
        return self.facts.folder


def look(remote: Remote, host: Host) -> Facts:
    """Reach a host, describe it, and refuse what cannot work there before anything is changed.

    Raises InputError for the first misfit: key, host key, architecture, clock, rights, GPUs, disk, driver, wheels, server URL.
    """
    service.server_seen_from_host(host)
    service.check_tunnel_key(host)
    facts = identify(remote, host.folder)
    installed = remote.read(f"{facts.folder}/state/environment")
    require(host, facts, 0 if installed else environment.disk_need(host))
    if not installed:  # later the wheels may be gone
        environment.require_links(remote, host)
    if not host.python_environment:
        environment.torch_index(host, facts)
    return facts


def run_step(setup: Setup, name: str) -> Outcome:
    """Bring one step of STEPS about. Raises InputError for what a person must change, others for what may pass."""
    started = time.monotonic()
    done, apply = _ACTIONS[name]
    text = done(setup)
    changed = text is None
    if changed:
        applied = apply(setup)
        text = done(setup)
        if text is None:
            raise RuntimeError(f"{setup.host.name}: {name} was applied ({applied}) but does not hold: run again.")
        text = applied
    return Outcome(name, changed, text, round(time.monotonic() - started, 2))


def stamp(setup: Setup, name: str, recipe: Any) -> None:
    """Leave the recipe of a finished step on the host."""
    setup.remote.put(fingerprint(recipe), f"{setup.folder}/state/{name}")


def stamped(setup: Setup, name: str, recipe: Any) -> bool:
    """Whether a step was finished from the same recipe."""
    return setup.remote.read(f"{setup.folder}/state/{name}") == fingerprint(recipe)


def _packages_done(setup: Setup) -> str | None:
    missing = environment.lacking(setup.host, setup.facts)
    return None if missing else "nothing is missing"


def _packages(setup: Setup) -> str:
    text = environment.install_packages(setup.remote, setup.facts, environment.lacking(setup.host, setup.facts))
    setup.facts = identify(setup.remote, setup.host.folder)
    return text


def _environment_done(setup: Setup) -> str | None:
    if not stamped(setup, "environment", environment.environment_recipe(setup.host, setup.facts)):
        return None
    alive = setup.remote.run('"$1/venv/bin/python" -I -c ""', setup.folder, check=False)
    return "the environment is up to date" if alive.status == 0 else None


def _environment(setup: Setup) -> str:
    setup.remote.run('rm -f "$1/state/environment" "$1/state/fabrating" "$1/state/attention"', setup.folder)
    text = environment.install_environment(setup.remote, setup.host, setup.facts)
    stamp(setup, "environment", environment.environment_recipe(setup.host, setup.facts))
    return text


def _wheel_recipe(setup: Setup) -> list[Any]:
    return [sha256_file(setup.wheel), environment.environment_recipe(setup.host, setup.facts)]


def _fabrating_done(setup: Setup) -> str | None:
    if not stamped(setup, "fabrating", _wheel_recipe(setup)):
        return None
    where = setup.remote.run(LOCATE, setup.folder, check=False)
    return f"{setup.wheel.name} is installed" if where.status == 0 else None


def _fabrating(setup: Setup) -> str:
    text = environment.install_wheel(setup.remote, setup.facts, setup.wheel)
    stamp(setup, "fabrating", _wheel_recipe(setup))
    return text


LOCATE = """cd / && exec "$1/venv/bin/python" -I -c '
import importlib.metadata
print(importlib.metadata.distribution("fabrating").locate_file(""))'"""


def _attention_done(setup: Setup) -> str | None:
    if not environment.flash_wanted(setup.host):
        return "not asked for"
    if setup.unreached is not None:
        return setup.unreached
    if not stamped(setup, "attention", environment.flash_recipe(setup.host, setup.facts)):
        return None
    return setup.remote.read(f"{setup.folder}/state/attention.txt")


def _attention(setup: Setup) -> str:
    found = environment.install_flash(setup.remote, setup.host, setup.facts)
    recipe = environment.flash_recipe(setup.host, setup.facts)
    setup.remote.put(found.text, f"{setup.folder}/state/attention.txt")
    if found.unreached:
        setup.unreached = found.text
        recipe = [recipe, found.installed]
    stamp(setup, "attention", recipe)
    return found.text


def _secrets_file(setup: Setup) -> str:
    return service.environment_file(setup.secrets)


def _secrets_done(setup: Setup) -> str | None:
    path = f"{setup.folder}/secrets.env"
    seen = setup.remote.run('[ -f "$1" ] && stat -c %a "$1" && sha256sum <"$1"', path, check=False).out.split()
    expected = hashlib.sha256(_secrets_file(setup).encode()).hexdigest()
    if seen[:2] != ["600", expected]:
        return None
    return f"secrets.env holds {', '.join(setup.secrets) or 'nothing'}"


def _secrets(setup: Setup) -> str:
    setup.remote.put(_secrets_file(setup), f"{setup.folder}/secrets.env", 0o600)
    return f"wrote secrets.env with {', '.join(setup.secrets) or 'nothing: none is set in the environment here'}"


def _nanochat_recipe(setup: Setup) -> list[Any]:
    archive = Path(setup.host.nanochat_source).expanduser()
    source = sha256_file(archive) if archive.is_file() else setup.host.nanochat_source
    prepared = setup.host.python_environment
    return [source, setup.host.nanochat_commit, prepared, bool(setup.host.gpus)]


def _nanochat_done(setup: Setup) -> str | None:
    if "nanochat" not in setup.host.engines:
        return "not asked for"
    if not stamped(setup, "nanochat", _nanochat_recipe(setup)):
        return None
    return f"nanochat {setup.host.nanochat_commit} is there"


def _nanochat(setup: Setup) -> str:
    text = environment.install_nanochat(setup.remote, setup.host, setup.facts)
    stamp(setup, "nanochat", _nanochat_recipe(setup))
    return text


def _smoke_recipe(setup: Setup) -> list[Any]:
    # The stamp tells what could be installed so far: what comes later is to be measured.
    attention = [setup.host.attention, setup.remote.read(f"{setup.folder}/state/attention")]
    return [_wheel_recipe(setup), setup.host.gpus, [gpu.driver for gpu in setup.facts.gpus], attention]


def _smoke_done(setup: Setup) -> str | None:
    raw = setup.remote.read(f"{setup.folder}/state/probe.json")
    if not raw or not stamped(setup, "smoke", _smoke_recipe(setup)):
        return None
    setup.probed = json.loads(raw)
    return f"passed before: {_smoke_text(setup)}"


def _smoke(setup: Setup) -> str:
    setup.probed = environment.probe(setup.remote, setup.facts, setup.host.gpus)
    arguments = (max(setup.host.gpus, 0), setup.host.attention)
    result = setup.remote.run(SMOKE, setup.folder, *arguments, timeout=SMOKE_SECONDS)
    setup.probed["smoke"] = json.loads(result.out.splitlines()[-1])
    setup.remote.put(json.dumps(setup.probed), f"{setup.folder}/state/probe.json")
    stamp(setup, "smoke", _smoke_recipe(setup))
    return _smoke_text(setup)


SMOKE = """cd "$1" && exec "$1/venv/bin/python" -m tasks.hosts.smoke "$1/tmp/smoke" "$2" "$3" """


def _smoke_text(setup: Setup) -> str:
    smoke = setup.probed["smoke"]
    return (
        f"{smoke['steps']} steps of a d{smoke['depth']} model on {smoke['device']}, loss {smoke['first_loss']:.2f} -> "
        f"{smoke['lowest_loss']:.2f}, {smoke['seconds']:.0f} s{_measured(smoke)}"
    )


def _measured(smoke: dict[str, Any]) -> str:
    """What was measured of attention, if anything."""
    found = smoke.get("attention")
    if not found:
        return ""
    starts = found["seconds"]
    times = [f"{name} {ms:.2f} ms and {starts[name]:.1f} s to start" for name, ms in found["milliseconds"].items()]
    return "; ".join(
        [f"; attention by {found['taken']}", *([", ".join(times)] if len(times) > 1 else []), *found["left"]]
    )


TAKEN = "remote port forwarding failed"
HEALTH = """exec "$1/venv/bin/python" -I -c '
import sys, urllib.request
urllib.request.urlopen(sys.argv[1] + "/health", timeout=10).read()' "$2" """


OWN = 'exec sh "$1/tunnel-far.sh" own "$2"'


def _server_answers(setup: Setup) -> str | None:
    """None when the host reaches the Prefect server, else the reason. Raises InputError when another account has the tunnel's port."""
    if setup.host.way_back == "tunnel":
        try:
            own = setup.remote.run(OWN, setup.folder, setup.host.tunnel_port, check=False)
        except InputError as error:
            raise InputError(f"{str(error).rstrip('.')}: give another tunnel_port.") from error
        if own.status != 0:
            return own.last
    url = service.server_seen_from_host(setup.host)
    result = setup.remote.run(HEALTH, setup.folder, url, check=False)
    return None if result.status == 0 else result.last


def _wait_for_server(setup: Setup, seconds: float) -> str | None:
    """None as soon as the host reaches the server, else the last reason."""
    end = time.monotonic() + seconds
    while (reason := _server_answers(setup)) is not None and time.monotonic() < end:
        time.sleep(1)
    return reason


def _way_back_done(setup: Setup) -> str | None:
    tunnel = setup.host.way_back == "tunnel"
    if tunnel and not _tunnel(setup).installed():
        return None
    # A tunnel that lost its connection comes back by itself.
    if _wait_for_server(setup, RECONNECT_SECONDS if tunnel else 0) is not None:
        return None
    return f"the host reaches {setup.host.server} {'through the tunnel' if tunnel else 'directly'}"


def _way_back(setup: Setup) -> str:
    text = ""
    if setup.host.way_back == "tunnel" and not _tunnel(setup).installed():
        text = service.install_tunnel(_tunnel(setup), setup.remote, setup.facts) + "; "
    reason = _wait_for_server(setup, WAY_BACK_SECONDS)
    if reason is None:
        return f"{text}the host reaches {setup.host.server}"
    if setup.host.way_back == "tunnel":
        said = _tunnel(setup).log()
        if TAKEN in said:
            raise InputError(
                f"The port {setup.host.tunnel_port} of {setup.host.name}'s loopback is taken ({said}): give another tunnel_port."
            )
        reason = f"{reason}; the tunnel says: {said}"
        if setup.host.key_file is None:
            reason += "; key_file is empty, and a service has no ssh-agent: give the key's file"
    raise LinkError(
        f"{setup.host.name} does not reach the Prefect server {setup.host.server} ({reason}): check that the server runs and "
        "that the host's SSH server allows port forwarding."
    )


def _tunnel(setup: Setup) -> service.Service:
    return service.tunnel(setup.host, setup.folder, setup.remote.known)


def _worker_files(setup: Setup) -> dict[str, str]:
    code = setup.remote.run(LOCATE, setup.folder).out.strip()
    variables = service.worker_environment(setup.host, setup.facts, code)
    if measured := setup.probed.get("smoke", {}).get("attention"):
        variables[MEASURED] = measured["taken"]
    return {"worker.sh": script("worker.sh"), "worker.env": service.environment_file(variables)}


def _worker(setup: Setup) -> tuple[service.Service, dict[str, str]]:
    written = _worker_files(setup)
    secret = hashlib.sha256(_secrets_file(setup).encode()).hexdigest()
    recipe = fingerprint(written, secret, _wheel_recipe(setup), script("supervise.py"), script("unit.service"))
    return service.worker(setup.remote, setup.host, setup.facts, recipe), written


def worker_log(setup: Setup) -> str:
    """What the worker's service said last."""
    return _worker(setup)[0].log()


def _worker_done(setup: Setup) -> str | None:
    return "the worker's service runs" if _worker(setup)[0].installed() else None


def _worker_apply(setup: Setup) -> str:
    unit, written = _worker(setup)
    for name, text in written.items():
        setup.remote.put(text, f"{setup.folder}/{name}", 0o700 if name.endswith(".sh") else 0o600)
    return unit.install()


_ACTIONS: dict[str, tuple[Callable[[Setup], str | None], Callable[[Setup], str]]] = {
    "packages": (_packages_done, _packages),
    "environment": (_environment_done, _environment),
    "fabrating": (_fabrating_done, _fabrating),
    "attention": (_attention_done, _attention),
    "secrets": (_secrets_done, _secrets),
    "nanochat": (_nanochat_done, _nanochat),
    "smoke": (_smoke_done, _smoke),
    "way-back": (_way_back_done, _way_back),
    "worker": (_worker_done, _worker_apply),
}
