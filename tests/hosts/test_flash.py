"""Flash Attention on a host: where it is looked for, what is said where it is not to be had, and what is measured of it."""

import http.server
import re
import subprocess
import sys
import sysconfig
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import ANY

import pytest
from pydantic import ValidationError

from tasks.errors import InputError
from tasks.hosts import environment, provision, smoke
from tasks.hosts.facts import Facts, Gpu, identify
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import Local
from tasks.hosts.provision import Setup, run_step
from tasks.hosts.removal import remove
from tasks.spec import Host as Parameters
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import prepare


class _Packages(http.server.BaseHTTPRequestHandler):
    """An index, or a page of links, that answers with the status of the first folder of the path, and lists nothing."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def packages() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Packages)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def facts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Facts:
    """An installation on this machine whose PyTorch says its version of CUDA and no more; nobody waits for a second try."""
    made = tmp_path / "made"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made / "venv"], check=True)
    (_site(made) / "torch.py").write_text("class version:\n    cuda = '13.0'\n")
    for name in ("UV_HTTP_RETRIES", "PIP_RETRIES"):
        monkeypatch.setenv(name, "0")
    for name in ("PIP_FIND_LINKS", "UV_FIND_LINKS", "UV_EXTRA_INDEX_URL", "UV_INDEX", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    gpu = Gpu("H100", 81_559, "580.65.06")
    return replace(identify(Local(), str(made)), uv=str(Path(sys.executable).with_name("uv")), gpus=(gpu,))


def _site(made: Path) -> Path:
    return next((made / "venv").glob("lib/python*/site-packages"))


@pytest.mark.parametrize("tool", ["uv", "pip"])
def test_links_without_a_wheel_are_told_from_links_out_of_reach(tool: str, facts: Facts, packages: str) -> None:
    made = Path(facts.folder)
    if tool == "pip":  # as in a prepared environment that has it
        (_site(made) / "prepared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    fa3 = {"attention": "fa3", "python_environment": "/opt/torch"}
    for links, error in {
        str(made): InputError,
        f"{packages}/200/": InputError,
        f"{packages}/503/": ConnectionError,
        "http://127.0.0.1:9/": ConnectionError,
        f"{made}/none": InputError,
        f"{packages}/404/": InputError,
    }.items():
        host = Parameters(name="gpu", address="gpu", find_links=links, **fa3)
        with pytest.raises(error, match=r"^attention is fa3, but .* give attention=auto\.$") as caught:
            environment.install_flash(Local(), host, facts)
        assert ("there is no wheel for it: " in str(caught.value)) == (error is InputError)
        assert len(str(caught.value).splitlines()) == 1


def test_links_to_a_folder_that_is_not_there_are_refused_before_anything_is_installed(tmp_path: Path) -> None:
    (tmp_path / "my wheels").mkdir()
    for links in (None, f"{tmp_path}/my wheels", f"file://{tmp_path}/my%20wheels", "https://example.invalid/"):
        environment.require_links(Local(), Parameters(name="gpu", address="gpu", find_links=links))
    for links in (f"{tmp_path}/my wheel", f"file://{tmp_path}/my%20wheel"):
        host = Parameters(name="gpu", address="gpu", find_links=links)
        with pytest.raises(InputError, match=f"find_links is {links}, but this machine has no such folder"):
            environment.require_links(Local(), host)
    for mistyped in ("htps://example.org/wheels", "wheels", "~/wheels", "file://wheels"):
        with pytest.raises(ValidationError, match="is not where wheels lie: a path that begins with /"):
            Parameters(name="gpu", address="gpu", find_links=mistyped)


def test_an_index_out_of_reach_leaves_cudnn_and_is_asked_again_the_next_time(
    facts: Facts, packages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def setup() -> Setup:
        return Setup(Parameters(name="gpu", address="gpu"), Local(), facts, Path(__file__), {})

    def smoke() -> list[object]:
        return provision._smoke_recipe(setup())

    for status in (503, 403, 503):
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{packages}/{status}/")
        outcome = run_step(setup(), "attention")
        assert outcome.changed and outcome.text.startswith("no fa4 yet (it could not be installed: ")
        assert "; the next gpu-host tries again)" in outcome.text and str(status) in outcome.text
    waiting = smoke()
    run_step(setup(), "attention")
    assert smoke() == waiting, "what was measured holds as long as nothing new is installed"
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{packages}/404/")
    outcome = run_step(setup(), "attention")
    assert outcome.changed and outcome.text.startswith("no fa4 (there is no wheel for this host: ")
    assert not run_step(setup(), "attention").changed
    assert smoke() != waiting, "the index has answered"


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
