"""Flash Attention on a host: what uv and pip answer decides whether a later provisioning looks again."""

import http.server
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts import environment, provision
from tasks.hosts.facts import Facts, Gpu, identify
from tasks.hosts.machine import Local
from tasks.hosts.provision import Setup, run_step
from tasks.spec import Host as Parameters


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
        f"{made}/none": ConnectionError,
    }.items():
        host = Parameters(name="gpu", address="gpu", find_links=links, **fa3)
        with pytest.raises(error, match=r"^attention is fa3, but .* give attention=auto\.$") as caught:
            environment.install_flash(Local(), host, facts)
        assert ("there is no wheel for it: " in str(caught.value)) == (error is InputError)
        assert len(str(caught.value).splitlines()) == 1


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
