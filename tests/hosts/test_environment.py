"""What a host needs before a worker can run: what is lacking, what may be installed, what is left alone."""

from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts import environment
from tasks.hosts.facts import Gpu, identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import Local
from tasks.hosts.provision import run_step
from tasks.hosts.removal import remove
from tasks.hosts.ssh import Remote
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import parameters, prepare


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
