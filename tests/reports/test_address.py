import json

from typer.testing import CliRunner

from infra.cli.main import app
from tasks.reports.address import VARIABLE, address


def test_a_report_has_the_address_of_the_stack_and_names_another_root(bench, monkeypatch):
    root = bench.root
    monkeypatch.delenv(VARIABLE, raising=False)
    assert address(root, "runs", "x") is None
    monkeypatch.setenv(VARIABLE, "http://127.0.0.1:4201")
    assert address(root, "runs", "x", str(root.folder)) == "http://127.0.0.1:4201/runs/x"
    other = address(root, "verdicts", "x", str(bench.root.folder.parent / "elsewhere")) or ""
    assert other.startswith("http://127.0.0.1:4201/verdicts/x?root=file%3A%2F%2F%2F")


def test_open_says_where_a_report_lies_without_a_stack(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("FABRATING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv(VARIABLE, raising=False)
    (run,) = bench.arms(seeds=1, top16=0.0)["top16"]
    found = CliRunner().invoke(app, ["open", run[-6:], "--root", str(bench.root.folder), "--json"])
    assert json.loads(found.stdout) == {"report": (bench.root.path(f"runs/{run}") / "report.html").as_uri()}
