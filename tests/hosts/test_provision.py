"""A bare account becomes a host with a worker's service, stays one, survives cuts, and is a bare account again."""

import json
import shutil
import threading
import time
from pathlib import Path

import paramiko
import pytest

from tasks.errors import InputError
from tasks.hosts import provision, report, service, smoke
from tasks.hosts.facts import identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import LinkError, Local
from tasks.hosts.provision import STEPS, Outcome, Setup, run_step
from tasks.hosts.removal import remove
from tasks.hosts.ssh import Remote, StrangerError
from tasks.hosts.wheel import CHECKOUT, build_wheel
from tests.hosts.lab import SECRET, Lab, call, parameters, prepare
from tests.hosts.lab import Host as Machine
from tests.waiting import within

RUN = "import os, signal; os.mkdir('runs'); signal.signal(signal.SIGTERM, lambda *_: exit(open('runs/saved', 'w').close())); signal.pause()"
"""A run that saves what it has when it is asked to end."""
QUICK = [step for step in STEPS if step != "smoke"]
"""Without the training, which takes a while on a CPU: the test of the flow has it."""


def all_steps(setup: Setup) -> list[Outcome]:
    return [run_step(setup, step) for step in QUICK]


def test_wheel_of_the_same_source_is_the_same(tmp_path: Path) -> None:
    checkout = tmp_path / "checkout"
    for name in ("pyproject.toml", "README.md", "LICENSE", "tasks/__init__.py", "tasks/errors.py", "infra/__init__.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CHECKOUT / name, checkout / name)
    first = build_wheel(tmp_path / "one", checkout)
    assert build_wheel(tmp_path / "two", checkout).read_bytes() == first.read_bytes()
    (checkout / "tasks" / "errors.py").write_text("")
    assert build_wheel(tmp_path / "one", checkout).parent != first.parent


def test_bare_account_to_worker_and_back(machine: Machine, known: KnownHosts, wheel: Path, server: str) -> None:
    setup = prepare(machine, known, wheel, server=server)
    folder = setup.folder
    assert folder == f"{machine.home}/fab rating"
    first = {outcome.step: outcome.changed for outcome in all_steps(setup)}
    assert first == {
        "packages": False,
        "environment": True,
        "fabrating": True,
        "attention": False,
        "secrets": True,
        "nanochat": False,
        "way-back": True,
        "worker": True,
    }
    assert setup.remote.run('. "$1/secrets.env"; printf %s "$WANDB_API_KEY"', folder).out == SECRET["WANDB_API_KEY"]
    assert within(30, lambda: "prefect worker start" in machine.run("ps axww -o args")), (
        "it waits for the tunnel for ever"
    )
    assert setup.remote.run('stat -c %a "$1/secrets.env"', folder).out.strip() == "600"
    assert all(value not in setup.remote.run("cat /proc/[0-9]*/cmdline").out for value in SECRET.values())

    again = prepare(machine, known, wheel, server=server)
    started = time.monotonic()
    assert [outcome.step for outcome in all_steps(again) if outcome.changed] == []
    assert time.monotonic() - started < 20
    assert "FABRATING_ATTENTION" not in provision._worker_files(again)["worker.env"]
    again.probed = {"smoke": {"attention": {"taken": "fa4"}}}
    assert "FABRATING_ATTENTION=fa4\n" in provision._worker_files(again)["worker.env"]
    again.probed = {}

    rotated = Setup(again.host, again.remote, again.facts, wheel, SECRET | {"HF_TOKEN": "new"})
    assert [o.step for o in all_steps(rotated) if o.changed] == ["secrets", "worker"]

    machine.run(f'mkdir -p "{folder}/root/arms" && touch "{folder}/root/arms/kept"')
    key = machine.key.read_text().splitlines()[1]
    assert machine.run(f'grep -rlF "{key}" "$HOME" || true') == ""
    machine.run(f'cd "{folder}/root" && setsid "{folder}/venv/bin/python" -c "{RUN}" >/dev/null 2>&1 &')
    assert within(20, lambda: machine.run(f'ls "{folder}/root"') == "arms\nruns")
    with pytest.raises(InputError, match="still works on a run"):
        remove(again.remote, again.host)
    outcomes = remove(again.remote, again.host, force=True)
    assert {outcome.step: outcome.changed for outcome in outcomes} == {"worker": True, "way-back": True, "files": True}
    assert outcomes[0].text == "stopped the worker and ended its run"
    assert (
        machine.run('cd "$HOME" && find . -type f | sort')
        == "./fab rating/.fabrating\n./fab rating/root/arms/kept\n./fab rating/root/runs/saved"
    )
    assert "worker.sh" not in machine.run("ps ax -o args")
    remove(again.remote, again.host, artifacts=True)
    assert machine.run('ls -A "$HOME"') == ""
    assert not any(outcome.changed for outcome in remove(again.remote, again.host)[:2])


def test_server_of_another_account_at_the_tunnels_port_is_not_taken_for_ours(
    machine: Machine, known: KnownHosts, wheel: Path, server: str
) -> None:
    answers = "import http.server as h; h.HTTPServer(('127.0.0.1', 4311), type('H', (h.BaseHTTPRequestHandler,), {'do_GET': lambda s: (s.send_response(200), s.end_headers())})).serve_forever()"
    machine.run(f'setsid python3 -c "{answers}" >/dev/null 2>&1 &', user="nobody")
    setup = prepare(machine, known, wheel, server=server, tunnel_port=4311)
    try:
        for step in ("environment", "fabrating"):
            run_step(setup, step)
        with pytest.raises(InputError, match=r"its port 4311 is taken by the account nobody: give another tunnel_port"):
            run_step(setup, "way-back")
        setup.host = parameters(machine, server=server, tunnel_port=4312)
        assert run_step(setup, "way-back").changed
        assert setup.remote.run(provision.OWN, setup.folder, 4312).status == 0
        with pytest.raises(InputError, match="its port 4311 is taken by the account nobody"):
            setup.remote.run(provision.OWN, setup.folder, 4311)
    finally:
        machine.run("pkill -u nobody python3 || true", user="root")
        remove(setup.remote, setup.host, artifacts=True, force=True)
    assert "tunnel-far.sh" not in machine.run("ps ax -o args"), "nothing of it is left to notice in its own time"


def test_host_that_is_gone_is_forgotten_by_force(lab: Lab, known: KnownHosts, server: str) -> None:
    machine = lab.host("gone")
    host = parameters(machine, server=server)
    with Remote(host, known) as remote:
        facts = identify(remote, host.folder)
        tunnel = service.tunnel(host, facts.folder, known)
        service.install_tunnel(tunnel, remote, facts)
        assert tunnel.running()
        machine.stop()
        remote.close()
        with pytest.raises(LinkError, match=r"gone .* does not answer .* remove it with force"):
            remove(remote, host)
        assert tunnel.running()
        worker, way_back = remove(remote, host, force=True)
    assert not worker.changed and "does not answer" in worker.text
    assert way_back.changed and not Path(tunnel.folder).exists()
    assert not tunnel.running()


def test_another_machine_at_the_address_is_left_alone(lab: Lab, known: KnownHosts) -> None:
    host = parameters(lab.host("stranger"))
    known.pin(host.address, host.port, paramiko.ECDSAKey.generate())  # the host that was there before
    with Remote(host, known) as remote:
        with pytest.raises(StrangerError, match=r"another machine answers.* remove it with force"):
            remove(remote, host)
        worker, way_back = remove(remote, host, force=True)
    assert not worker.changed and "nothing was removed there" in worker.text
    assert not way_back.changed


def test_script_that_takes_too_long_here_ends_with_all_it_began(tmp_path: Path) -> None:
    with pytest.raises(LinkError, match="no end after"):
        Local().run('sleep 2; touch "$1"', str(tmp_path / "late"), timeout=0.3)
    time.sleep(2.5)
    assert not (tmp_path / "late").exists()


@pytest.mark.slow
def test_run_that_is_cut_again_and_again_gets_there(lab: Lab, known: KnownHosts, wheel: Path, server: str) -> None:
    machine = lab.host("torn")
    ended = threading.Event()

    def tear() -> None:
        pause = 1.0
        while not ended.wait(pause):
            pause *= 1.3  # however busy this machine is, some pause is long enough for every step
            machine.run("pkill -u rented -x sshd || pkill -u rented -x sshd-session || true", user="root")

    thread = threading.Thread(target=tear)
    thread.start()
    cuts = 0
    host = parameters(machine, server=server)
    remote = Remote(host, known)
    try:
        for step in ("look", *QUICK):
            for _ in range(20):
                try:
                    if step == "look":
                        setup = Setup(host, remote, provision.look(remote, host), wheel, SECRET)
                    else:
                        run_step(setup, step)
                    break
                except (LinkError, ConnectionError):
                    cuts += 1
            else:
                pytest.fail(f"{step} did not get through 20 cuts")
    finally:
        ended.set()
        thread.join()
    assert cuts > 0
    # The supervisor pauses for up to a minute before it starts again what ended that often.
    assert within(90, lambda: run_step(setup, "way-back").text.startswith("the host reaches"))
    try:
        assert [outcome.step for outcome in all_steps(setup) if outcome.changed] == []
    finally:
        remove(remote, host, artifacts=True)


def test_misfits_are_refused_before_anything_is_changed(lab: Lab, machine: Machine, known: KnownHosts) -> None:
    cases = {
        r"asked for 2 GPU\(s\) but nvidia-smi is not installed: .* gpus=0": {"gpus": 2},
        r"needs about 3.0 GB: free some space": {"python_environment": None},
        r"cannot write to /usr/lib/fabrating": {"folder": "/usr/lib/fabrating"},
        r"would carry secrets unencrypted": {"way_back": "direct", "server": "http://192.0.2.1:4200/api"},
        r"set way_back=direct": {"way_back": "tunnel", "server": "https://prefect.example/api"},
    }
    for expected, changes in cases.items():
        host = parameters(machine, **changes)
        with Remote(host, known) as remote, pytest.raises(InputError, match=expected) as caught:
            provision.look(remote, host)
        assert "\n" not in str(caught.value)
    assert machine.run('cd "$HOME" && find . -type f') == ""
    tiny = lab.host("tiny", disk="50m")
    host = parameters(tiny)
    with (
        Remote(host, known) as remote,
        pytest.raises(InputError, match=r"tiny has 0\.1 GB free .* needs about 0\.2 GB"),
    ):
        provision.look(remote, host)


def test_folder_with_things_of_others_is_refused_and_left_alone(machine: Machine, known: KnownHosts) -> None:
    machine.run("mkdir -p 'fab rating/venv' 'fab rating/nanochat' && touch 'fab rating/venv/theirs' 'fab rating/state'")
    host = parameters(machine)
    try:
        with Remote(host, known) as remote:
            with pytest.raises(
                InputError, match=r"has other things in .*fab rating \(nanochat, state, venv, \.\.\.\): give a folder"
            ):
                provision.look(remote, host)
            files = remove(remote, host, artifacts=True)[-1]
        assert not files.changed
        assert machine.run("ls 'fab rating'").split() == ["nanochat", "state", "venv"]
    finally:
        machine.run("rm -r 'fab rating'")


def test_disk_that_runs_no_programs_is_refused(machine: Machine, known: KnownHosts) -> None:
    place = f"{machine.home}/no programs"
    machine.run(f"mkdir '{place}' && mount -t tmpfs -o noexec,mode=777,size=1g none '{place}'", user="root")
    host = parameters(machine, folder=f"{place}/fabrating")
    try:
        with Remote(host, known) as remote, pytest.raises(InputError, match="mounted noexec: give a folder on another"):
            provision.look(remote, host)
    finally:
        machine.run(f"umount '{place}' && rmdir '{place}'", user="root")


def test_key_with_a_passphrase_is_refused_for_a_tunnel(machine: Machine, known: KnownHosts, tmp_path: Path) -> None:
    key = tmp_path / "locked"
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "secret", "-f", str(key))
    host = parameters(machine, key_file=str(key))
    with Remote(host, known) as remote, pytest.raises(InputError, match="has a passphrase, and the tunnel's service"):
        provision.look(remote, host)


def test_report_tells_what_is_there(machine: Machine, known: KnownHosts, wheel: Path) -> None:
    setup = prepare(machine, known, wheel)
    setup.probed = {"versions": {"torch": "2.13.0", "fabrating": "0.1.0"}}
    outcomes = [Outcome("packages", False, "nothing is missing", 0.1), Outcome("secrets", True, "a | b", 0.2)]
    text = report.provisioned(setup, outcomes, ["pinned"], [report.Cost("d20", 8.5, 25.5, "measured")])
    for part in (
        "1 of 2 steps",
        "Debian",
        "GB for",
        "| torch | 2.13.0 |",
        "| d20 | 8.50 | 25.50 |",
        "a \\| b",
        "after a reboot",
    ):
        assert part in text


def test_the_smoke_test_trains_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main(tmp_path / "smoke", 0) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["depth"], seen["steps"], seen["device"]) == (1, 12, "cpu")
    assert seen["lowest_loss"] < seen["first_loss"]
