import json

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from infra.cli import options
from infra.cli.main import app
from infra.local import stack
from infra.local.stack import Stack
from tasks.errors import InputError
from tasks.records import ledger
from tasks.reports.live import SCORING, left
from tasks.spec import Arm, Experiment, Training
from tasks.store.root import Root


def run(*arguments, **more):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], **more)


def trained(root, arm="rand16", seed=1, **facts):
    entry = ledger.open_entry(root, Experiment(arm=Arm(name=arm), seed=seed), "pool-1", f"{arm}-0123456789")
    return ledger.finish(root, entry.run, "completed", facts=facts) if facts else entry


def test_runs_fit_eighty_columns_whatever_arms_are_called(tmp_path):
    root = Root(tmp_path)
    for arm, seed in (("rand16", 1), ("pedagogical-and-factual-no-engagement", 12)):
        trained(root, arm, seed, bpb=1.0, loss=3.0, steps=12_345, tokens=10**9, tokens_per_second=1_234_567.0)
    active = trained(root, "top16")
    shown = run("runs", "--root", tmp_path)
    lines = [line.rstrip() for line in shown.stdout.splitlines()]
    assert max(map(cell_len, lines)) <= 80
    assert lines[1].split()[:3] == [active.run.rpartition("-")[2][:6], "top16", "1"], "the active one is first"
    wide = run("runs", "--root", tmp_path, "--wide").stdout
    assert all(column in wide for column in ("loss", "attempts", "rand16-d20-s1-"))


def test_a_run_says_that_it_is_scored_after_its_last_step(tmp_path):
    entry = trained(Root(tmp_path)).model_copy(update={"steps": 195, "tokens": 2_048, "tokens_per_second": 2_048.0})
    assert left(entry.model_copy(update={"step": 1})) == "3 min"
    assert left(entry.model_copy(update={"step": 195})) == SCORING


def test_a_run_that_cannot_be_read_is_named_beside_the_others(tmp_path):
    root = Root(tmp_path)
    kept, torn = (trained(root, arm, bpb=1.0).run for arm in ("rand16", "top16"))
    root.path(f"runs/{torn}/run.json").write_text('{"run": ')
    shown = run("runs", "--root", tmp_path)
    assert shown.exit_code == 0 and "rand16" in shown.stdout and "top16" not in shown.stdout
    assert f"runs/{torn}/run.json" in shown.stderr.replace("\n", "")
    assert [row["run"] for row in json.loads(run("runs", "--root", tmp_path, "--json").stdout)] == [kept]
    root.remove(f"runs/{kept}")
    assert "There are no runs" not in run("runs", "--root", tmp_path).stderr


def test_a_root_without_runs_is_named_with_the_reason_why_it_was_taken(tmp_path):
    shown = run("runs", "--root", tmp_path)
    assert shown.exit_code == 0
    assert f"There are no runs under {tmp_path.as_uri()} (given with --root)." in shown.stderr


@pytest.mark.parametrize(
    "command",
    [
        *(["runs"], ["runs", "--wide"], ["ls", "arms"], ["rm", "top16", "--yes"]),
        *(["inspect", "top16"], ["inspect", "arms/top16/text"], ["report", "top16"], ["open", "top16"]),
        *(["judge", "a=1", "b=2"], ["leaks", "top16"], ["train", "top16"], ["score", "top16"]),
        *(["write", "top16", "Water"], ["export", "top16", "out"]),
        *(["estimate", "2B"], ["design", "--effect", "0.01", "--dollars", "9"]),
    ],
    ids=" ".join,
)
def test_a_command_that_looks_up_what_is_there_makes_no_root(command, tmp_path, monkeypatch):
    typo, default = tmp_path / "typo", tmp_path / "default"
    monkeypatch.setenv("FABRATING_ROOT", str(default))
    monkeypatch.chdir(tmp_path)
    refused = run(*command, "--root", typo)
    assert refused.exit_code == 1 and list(tmp_path.iterdir()) == []
    assert f"There is no root {typo}: check the name of the folder" in refused.stderr
    by_default = run(*command)
    assert list(tmp_path.iterdir()) == []
    if command[0] in ("estimate", "design"):  # which can do without a ledger
        assert by_default.exit_code == 0, by_default.output
    elif command[0] == "inspect":
        assert "There is n" in by_default.stderr
    else:
        assert f"There is no root {default}: " in by_default.stderr


def test_a_remote_root_with_nothing_in_it_is_refused(bucket, tmp_path):
    url = f"{bucket('s3')}/root"
    with pytest.raises(InputError, match=rf"There is no root {url}, nothing lies there: check the URL, or prepare"):
        Root(url, tmp_path, make=False)
    assert list(tmp_path.iterdir()) == []
    trained(Root(url, tmp_path / "there"), bpb=1.0)
    assert len(ledger.entries(Root(url, tmp_path / "here", make=False))) == 1


def test_a_command_takes_the_root_of_the_running_stack_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setenv("FABRATING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FABRATING_ROOT", raising=False)
    monkeypatch.setattr(stack, "dotenv_values", lambda path: {"FABRATING_ROOT": "az://results/of-env"})
    monkeypatch.chdir(tmp_path)
    assert stack.default_root() == ("az://results/of-env", "FABRATING_ROOT of .env")
    running = Stack(tmp_path / "home", mark="m", root=str(tmp_path / "stack"))
    running.save()
    assert options.root_of(".fabrating/root") == "az://results/of-env", "a stack that is down says nothing"
    monkeypatch.setattr(Stack, "alive", lambda self, name: name == "server")
    Root(tmp_path / "stack")
    assert "(the running stack's)" in run("runs").stderr
    assert options.root_of(".fabrating/root") == str(tmp_path / "stack")
    assert options.root_of("/elsewhere") == "/elsewhere"
    monkeypatch.setenv("FABRATING_ROOT", str(tmp_path / "shell"))
    assert stack.default_root() == (str(tmp_path / "shell"), "FABRATING_ROOT of this shell")


def test_without_a_root_results_lie_in_the_folder_of_the_stack(tmp_path, monkeypatch):
    monkeypatch.setenv("FABRATING_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FABRATING_ROOT", raising=False)
    monkeypatch.setattr(stack, "dotenv_values", lambda path: {})
    monkeypatch.chdir(tmp_path)
    assert options.root_of(".fabrating/root") == str(tmp_path / "home" / "root")
    assert stack.default_root(tmp_path / "other") == (str(tmp_path / "other" / "root"), "the default")
    monkeypatch.delenv("FABRATING_HOME")
    assert options.root_of(".fabrating/root") == str(stack.PROJECT / ".fabrating" / "root")


def test_rm_removes_nothing_unasked(tmp_path):
    kept = trained(Root(tmp_path), bpb=1.0).run
    refused = run("rm", kept, "--root", tmp_path)
    assert refused.exit_code == 1 and "add --yes" in refused.stderr
    assert len(ledger.entries(Root(tmp_path))) == 1
    removed = run("rm", kept[-10:], "--root", tmp_path, "--yes", "--json")
    assert json.loads(removed.stdout)["removed"] == f"runs/{kept}"
    assert ledger.entries(Root(tmp_path)) == []


def test_inspect_shows_a_run_with_its_attempts(tmp_path):
    root = Root(tmp_path)
    training = Training(gpus=2)
    name = ledger.open_entry(root, Experiment(training=training), "pool-1", "top16-1").run
    ledger.open_entry(root, Experiment(training=training), "pool-1", "top16-1")
    found = json.loads(run("inspect", name[:-4], "--root", tmp_path, "--json").stdout)
    assert [each["state"] for each in found["attempts"]] == ["lost", "running"]
    assert found["where"].endswith(f"runs/{name}")


@pytest.mark.parametrize("what", ["pools", "arms", "runs", "verdicts"])
def test_ls_says_that_there_is_nothing(what, tmp_path):
    assert f"There are no {what} under" in run("ls", what, "--root", tmp_path).stderr
