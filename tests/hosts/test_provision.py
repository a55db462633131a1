"""A bare account becomes a host with a worker's service, stays one, survives cuts, and is a bare account again."""

import json
import re
import shutil
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import paramiko
import pytest

from tasks.errors import InputError
from tasks.hosts import environment, provision, report, service, smoke
from tasks.hosts.facts import Gpu, identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import LinkError, Local
from tasks.hosts.provision import STEPS, Outcome, Setup, run_step
from tasks.hosts.removal import remove
from tasks.hosts.ssh import Remote, StrangerError
from tasks.hosts.wheel import CHECKOUT, build_wheel
from tasks.spec import Host as Parameters
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import Lab, call, parameters
from tests.waiting import within

SECRET = {"WANDB_API_KEY": "it's $(no) `secret`\\", "AZURE_STORAGE_KEY": "a+/=="}
RUN = "import os, signal; os.mkdir('runs'); signal.signal(signal.SIGTERM, lambda *_: exit(open('runs/saved', 'w').close())); signal.pause()"
"""A run that saves what it has when it is asked to end."""
QUICK = [step for step in STEPS if step != "smoke"]
"""Without the training, which takes a while on a CPU: the test of the flow has it."""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheels"))


def prepare(machine: Machine, known: KnownHosts, wheel: Path, **changes: object) -> Setup:
    host = parameters(machine, **changes)
    remote = Remote(host, known)
    return Setup(host, remote, provision.look(remote, host), wheel, SECRET)


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


def test_nanochat_that_is_not_ours_or_was_changed_is_not_reset(tmp_path: Path) -> None:
    script = environment.script("nanochat.sh").partition('cd "$checkout" || exit\nif [ -n "$prepared"')[0]
    upstream = tmp_path / "upstream"
    upstream.mkdir()
    Local().run(
        'cd "$1" && git init -q && echo 1 >a && git add a && git -c user.name=n -c user.email=e commit -qm a',
        str(upstream),
    )
    commit = Local().run('git -C "$1" rev-parse HEAD', str(upstream)).out.strip()

    def check_out(folder: Path) -> None:
        (folder / "state").mkdir(parents=True, exist_ok=True)
        Local().run(script, str(folder), str(upstream), commit)

    check_out(tmp_path / "ours")
    check_out(tmp_path / "ours")
    (tmp_path / "ours/nanochat/a").write_text("2")
    with pytest.raises(InputError, match="nanochat has uncommitted changes"):
        check_out(tmp_path / "ours")
    (tmp_path / "theirs/nanochat").mkdir(parents=True)
    with pytest.raises(InputError, match="nanochat is not ours to change: move it away"):
        check_out(tmp_path / "theirs")


def test_settings_of_the_person_do_not_steer_an_installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"PIP_INDEX_URL": "https://mirror/simple", "UV_DEFAULT_INDEX": "https://mirror", "PIP_CERT": "/ca.pem"}
    dropped = (
        "PIP_TARGET",
        "PIP_PREFIX",
        "UV_PYTHON",
        "UV_SYSTEM_PYTHON",
        "CONDA_PREFIX",
        "PYTHONPATH",
        "PYTHONHOME",
        "VIRTUAL_ENV",
    )
    for name, value in (kept | dict.fromkeys(dropped, "/theirs") | {"PIP_USER": "1"}).items():
        monkeypatch.setenv(name, value)
    seen = dict(
        line.split("=", 1)
        for line in Local().run(environment.script("hold.sh") + "env", str(tmp_path)).out.splitlines()
    )
    assert {name: seen.get(name) for name in kept} == kept
    assert [name for name in dropped if name in seen] == []
    assert seen["PIP_USER"] == "0"


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


def test_missing_prepared_environment_is_named(machine: Machine, known: KnownHosts, wheel: Path) -> None:
    setup = prepare(machine, known, wheel, python_environment="/opt/none")
    with pytest.raises(InputError, match="no bin/python in /opt/none"):
        run_step(setup, "environment")
    remove(setup.remote, setup.host)


def test_account_without_root_is_told_what_to_ask_for(machine: Machine, remote: Remote) -> None:
    facts = identify(remote, "fabrating")
    assert facts.privilege == "none"
    with pytest.raises(InputError, match=r"lacks rsync, venv .* `apt-get install rsync python3-venv`"):
        environment.install_packages(remote, facts, ["rsync", "venv"])


def test_build_of_torch_follows_driver_and_architecture(machine: Machine) -> None:
    here = identify(Local(), "/tmp/none")
    gpu_host = parameters(machine, gpus=1, python_environment=None)
    older = "https://download.pytorch.org/whl/cu126"
    for driver, index in {"580.65.06": "", "570.172.08": older, "535.1": older}.items():
        for architecture in ("x86_64", "aarch64"):
            facts = replace(here, architecture=architecture, gpus=(Gpu("H100", 81559, driver),))
            assert environment.torch_index(gpu_host, facts) == index
    with pytest.raises(InputError, match="NVIDIA driver 470"):
        environment.torch_index(gpu_host, replace(here, gpus=(Gpu("A100", 81559, "470.1"),)))
    assert environment.torch_index(parameters(machine, gpus=0), here).endswith("/cpu")


def test_what_is_lacking_depends_on_rights_and_python(machine: Machine) -> None:
    bare = replace(identify(Local(), "/tmp/none"), uv=None, python=None, maker=None, missing=("venv", "cc", "git"))
    plain, gpu = (parameters(machine, gpus=gpus, python_environment=None) for gpus in (0, 1))
    assert environment.lacking(plain, bare) == ["venv"]
    assert environment.lacking(plain, replace(bare, uv="/usr/bin/uv")) == []
    assert environment.interpreter(plain, bare) == environment.PYTHON
    headless = replace(bare, python="/usr/bin/python3.11", maker="/usr/bin/python3", missing=("Python.h",))
    assert environment.lacking(gpu, replace(headless, privilege="sudo")) == ["Python.h"]
    assert environment.lacking(gpu, replace(headless, privilege="none")) == []
    assert environment.interpreter(gpu, headless) == environment.PYTHON
    assert environment.interpreter(gpu, replace(headless, missing=())) == "/usr/bin/python3.11"
    assert environment.interpreter(plain, headless) == "/usr/bin/python3.11"


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


def test_flash_attention_is_looked_for_where_there_may_be_a_wheel() -> None:
    host = Parameters(name="gpu", address="gpu")
    assert environment.flash_wanted(host) == ("fa4",)
    assert environment.flash_wanted(host.model_copy(update={"find_links": "/wheels"})) == ("fa3", "fa4")
    assert environment.flash_wanted(host.model_copy(update={"python_environment": "/opt/torch"})) == ()
    assert environment.flash_wanted(host.model_copy(update={"attention": "fa3", "python_environment": "/opt"})) == (
        "fa3",
    )
    for change in ({"attention": "cudnn"}, {"gpus": 0}):
        assert environment.flash_wanted(host.model_copy(update=change)) == ()


def test_flash_attention_is_installed_from_the_hosts_links_and_said_where_it_is_not(
    machine: Machine, known: KnownHosts, wheel: Path, server: str
) -> None:
    links = machine.folder / "links"
    links.mkdir(mode=0o755)
    name = "flash_attn_3-3.0.0"
    with zipfile.ZipFile(links / f"{name}-py3-none-any.whl", "w") as archive:
        archive.writestr("flash_attn_interface.py", "flash_attn_func = print\n")
        archive.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: flash-attn-3\nVersion: 3.0.0\n")
        archive.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{name}.dist-info/RECORD", "")
    machine.run("cd && touch pip.py torch.py venv.py")  # of a person's own: nothing of it is imported
    setup = prepare(machine, known, wheel, server=server, folder="flash")
    setup.host = setup.host.model_copy(update={"gpus": 1, "find_links": str(links)})
    try:
        for step in ("environment", "fabrating"):
            run_step(setup, step)
        setup.remote.run('ls "$1"/venv/lib/python*/site-packages/tasks', setup.folder)
        first = run_step(setup, "attention")
        assert first.changed and re.match(r"fa3 is installed; no fa4 \(there is no wheel for this host", first.text)
        assert run_step(setup, "attention") == replace(first, changed=False, seconds=ANY)
        setup.remote.run('"$1/venv/bin/python" -I -c "import flash_attn_interface, torch"', setup.folder)
        setup.host = setup.host.model_copy(update={"attention": "fa4"})
        with pytest.raises(
            InputError, match=r"attention is fa4, but .* cannot have it .*put a wheel .* attention=auto"
        ):
            run_step(setup, "attention")
    finally:
        machine.run("cd && rm pip.py torch.py venv.py")
        remove(setup.remote, setup.host, artifacts=True)


def test_what_was_measured_of_attention_is_said() -> None:
    found = {
        "taken": "fa4",
        "milliseconds": {"fa4": 1.0, "cudnn": 1.25},
        "seconds": {"fa4": 16.25, "cudnn": 0.2},
        "left": ["Flash Attention 3 is not available"],
    }
    text = provision._measured({"attention": found})
    measured = "fa4 1.00 ms and 16.2 s to start, cudnn 1.25 ms and 0.2 s to start"
    assert text == f"; attention by fa4; {measured}; Flash Attention 3 is not available"
    assert provision._measured({"attention": None}) == provision._measured({}) == ""


@pytest.mark.parametrize(
    ("does", "said"),
    [("exec sleep 30", "took longer than 0.2 s"), ("echo done", "printed no result"), ("kill -SEGV $$", "status -11")],
)
def test_whatever_a_trial_of_attention_does_leaves_cudnn_unless_another_is_asked_for(
    does: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{does}\n")
    python.chmod(0o755)
    monkeypatch.setattr(smoke.sys, "executable", str(python))
    monkeypatch.setattr(smoke, "TRIAL_SECONDS", 0.2 if "sleep" in does else 60)
    found, reason = smoke.measure_attention("auto")
    assert found == {"taken": "cudnn", "milliseconds": {}, "seconds": {}, "left": [reason]} and said in reason
    assert smoke.measure_attention("fa4") == (None, reason)


def test_the_smoke_test_trains_here(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert smoke.main(tmp_path / "smoke", 0) == 0
    seen = json.loads(capsys.readouterr().out)
    assert (seen["depth"], seen["steps"], seen["device"]) == (1, 12, "cpu")
    assert seen["lowest_loss"] < seen["first_loss"]
