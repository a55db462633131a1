"""Provisioning undone: the worker stopped, its run ended, everything of ours deleted from the host."""

import shlex
import time
from collections.abc import Callable
from pathlib import Path

from tasks.errors import InputError
from tasks.hosts import service
from tasks.hosts.facts import identify
from tasks.hosts.machine import LinkError, Machine
from tasks.hosts.provision import Outcome
from tasks.hosts.ssh import StrangerError
from tasks.spec import Host

PRESENT = '[ -d "$1/state" ] || { [ -n "$2" ] && [ -d "$1/$2" ]; }'
RUNS = r"""
runs() {
    for process in /proc/[0-9]*; do
        [ -O "$process" ] || continue
        command=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
        case $command in
        *"$1/venv/bin/python"*prefect*worker*start* | *supervise.py*) ;;
        *"$1/venv/bin/python"* | *"$1/nanochat/.venv/bin/"*) echo "${process#/proc/}" ;;
        esac
    done
}
"""
"""Processes of runs. They are asked to end, which makes a trainer save what it has; what has not ended then is killed."""
END_SECONDS = 60
END_RUNS = """
kill $(runs "$1") 2>/dev/null
for second in $(seq "$2"); do
    [ -n "$(runs "$1")" ] || exit 0
    sleep 1
done
kill -9 $(runs "$1") 2>/dev/null
true"""


def remove(remote: Machine, host: Host, *, artifacts: bool = False, force: bool = False) -> list[Outcome]:
    """Undo provisioning: service, secrets, environments, tunnel. `artifacts` deletes the host's own root folder, too.

    Debian packages stay. Raises InputError while a run is active there, LinkError when the host cannot be reached, and
    StrangerError when another machine answers; `force` ends the run, and where there is no host any more removes what is here.
    """
    outcomes = []

    def note(step: str, changed: bool, text: str, started: float) -> None:
        outcomes.append(Outcome(step, changed, text, round(time.monotonic() - started, 2)))

    started = time.monotonic()
    try:
        facts = identify(remote, host.folder)
    except (LinkError, StrangerError) as error:
        if not force:
            raise type(error)(f"{error} If the host is gone for good, remove it with force.") from error
        note("worker", False, f"nothing was removed there: {error}", started)
        _close_tunnel(service.tunnel(host, host.folder, getattr(remote, "known", None)), note)
        return outcomes
    present = (
        remote.run(PRESENT, facts.folder, "root" if artifacts else "", check=False).status == 0 and not facts.others
    )
    if present:
        runs = remote.run(RUNS + 'runs "$1"', facts.folder).out.split()
        if runs and not force:
            raise InputError(
                f"{host.name} still works on a run (processes {', '.join(runs[:5])}): cancel it or wait for it, or remove with "
                "force."
            )
        unit = service.worker(remote, host, facts, "")
        was = unit.running()
        unit.remove()
        if runs:
            remote.run(RUNS + END_RUNS, facts.folder, END_SECONDS, timeout=END_SECONDS + 60)
        text = "stopped the worker" if was else "no worker ran"
        note("worker", was, f"{text} and ended its run" if runs else text, started)
    else:
        note("worker", False, "no worker was installed", started)
    _close_tunnel(service.tunnel(host, facts.folder, getattr(remote, "known", None)), note)
    started = time.monotonic()
    if present:
        remote.run('[ ! -f "$1" ] || sh "$1" release', f"{facts.folder}/tunnel-far.sh")
        # secrets first, and last what says that there is something: a removal that breaks off is gone on with
        names = "secrets.env worker.env worker.sh requirements.txt tunnel-far.sh tunnel wheels nanochat nanochat.new cache tmp"
        names += " prefect tools supervise.py venv" + (" root" if artifacts else "") + " state"
        places = shlex.join(f"{facts.folder}/{name}" for name in names.split())
        remote.run(
            f'rm -rf {places} || exit; [ -e "$1/root" ] || rm -f "$1/.fabrating"; rmdir "$1" 2>/dev/null || true',
            facts.folder,
            timeout=600,
        )
    kept = "" if artifacts else "; artifacts under root/ are kept"
    note("files", present, f"deleted {facts.folder}{kept}" if present else "there was nothing to delete", started)
    return outcomes


def _close_tunnel(tunnel: service.Service, note: Callable[[str, bool, str, float], None]) -> None:
    started = time.monotonic()
    was = Path(tunnel.folder).is_dir()
    if was:
        tunnel.remove()
        tunnel.machine.run('rm -rf "$1"', tunnel.folder)
    note("way-back", was, "closed the tunnel" if was else "there was no tunnel", started)
