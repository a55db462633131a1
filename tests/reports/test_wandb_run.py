"""Forwarding to W&B: one run for all attempts, nothing sent twice, and no fault of W&B reaches the training."""

import json
import logging
import struct
import sys
import time

import pytest
from wandb.proto import wandb_internal_pb2

from tasks.records import ledger
from tasks.records.layout import run_id
from tasks.reports.wandb_run import as_logged, available_mode, forwarded
from tasks.spec import Arm, Experiment, Training
from tasks.store.root import Root
from tests.wandb_service import GOOD, REFUSED, wandb_service

__all__ = ["wandb_service"]

ARM = "top16-0123456789"
POOL = "pool-0123456789"


def make_experiment(mode="offline"):
    return Experiment(arm=Arm(name="top16"), training=Training(wandb=mode))


def write_metrics(root, run, steps):
    """What a trainer adds while it runs; a rerun repeats the steps since the checkpoint."""
    path = root.path(f"runs/{run}/metrics.jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        for step in steps:
            file.write(
                json.dumps({"step": step, "kind": "train", "time": 1.0, "loss": 1 / step, "tokens": step}) + "\n"
            )
        file.write(json.dumps({"step": steps[-1], "kind": "eval", "time": 1.0, "bpb": 1.5}) + "\n")
        file.write(json.dumps({"step": steps[-1], "kind": "event", "time": 1.0, "event": "checkpoint"}) + "\n")


def log_records(data):
    """The records of an offline run's file: LevelDB's log format in blocks of 32 KiB, after a header of 7 bytes."""
    position, parts = 7, b""
    while position + 7 <= len(data):
        if 32_768 - position % 32_768 < 7:
            position += 32_768 - position % 32_768
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield parts
            parts = b""


def records(path):
    """(run id, group, project, shown name) and history rows of an offline run's file, once W&B's service has written its last record."""
    deadline = time.monotonic() + 30
    while True:
        runs, rows, ended = set(), [], False
        for data in log_records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                runs.add((record.run.run_id, record.run.run_group, record.run.project, record.run.display_name))
            if kind == "history":
                items = record.history.item
                rows.append({(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in items})
            ended = ended or kind == "exit"
        if ended:
            return runs, rows
        assert time.monotonic() < deadline, f"{path} has no record of the run's end"
        time.sleep(0.1)


def test_two_attempts_are_one_run_and_nothing_is_sent_twice(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    for name in ("WANDB_RUN_ID", "WANDB_SWEEP_ID", "WANDB_RUN_GROUP"):
        monkeypatch.setenv(name, "of-another-job")
    root, experiment = Root(tmp_path), make_experiment()
    run = run_id(experiment, ARM)
    ledger.open_entry(root, experiment, POOL, ARM)
    with forwarded(root, experiment, POOL, ARM, "First try"):
        write_metrics(root, run, [1, 2, 3])
    root.path(f"runs/{run}/metrics.jsonl").unlink()
    with forwarded(root, experiment, POOL, ARM, "First try"):
        write_metrics(root, run, [1, 2])
        write_metrics(root, run, [3, 4])
    files = sorted(root.path(f"runs/{run}/wandb").glob("offline-run-*/run-*.wandb"))
    runs, rows = set(), []
    for file in files:
        found, history = records(file)
        runs |= found
        rows += history
    assert runs == {(run, POOL, "fabrating", "First try")}
    assert [row["step"] for row in rows if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in rows if "eval/bpb" in row] == [3, 4]
    assert "wandb/offline-run-" in ledger.find(root, run).wandb
    assert caplog.text.count("WANDB_RUN_ID, WANDB_RUN_GROUP, WANDB_SWEEP_ID in the environment: not used") == 1


def test_a_broken_installation_is_a_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    root, experiment = Root(tmp_path), make_experiment()
    done = []
    with caplog.at_level(logging.WARNING), forwarded(root, experiment, POOL, ARM):
        done.append("trained")
    assert done == ["trained"]
    assert "W&B is out of order" in caplog.text


def test_an_error_of_the_training_passes_through(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RuntimeError, match="diverged"), forwarded(Root(tmp_path), make_experiment(), POOL, ARM):
        raise RuntimeError("diverged")


@pytest.mark.parametrize(
    ("name", "value", "mode"),
    [
        ("WANDB_MODE", "dryrun", "offline"),
        ("WANDB_MODE", "disabled", "disabled"),
        ("WANDB_DISABLED", "true", "disabled"),
    ],
)
def test_the_environment_decides_for_auto_and_is_contradicted_aloud(monkeypatch, caplog, name, value, mode):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv(name, value)
    assert available_mode("auto") == mode and caplog.text == ""
    other = "disabled" if mode == "offline" else "offline"
    assert available_mode(other) == other
    assert f"W&B is {mode}, the run that it is {other}: the run's word counts" in caplog.text


def test_disabled_leaves_nothing(tmp_path):
    with forwarded(Root(tmp_path), make_experiment("disabled"), POOL, ARM):
        pass
    assert not list(tmp_path.rglob("wandb*"))


def test_online_without_a_key_is_kept_offline(monkeypatch, tmp_path, caplog):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert available_mode("online") == "offline"
    assert "wandb sync" in caplog.text
    caplog.clear()
    assert available_mode("auto") == "offline"
    assert caplog.text == ""


def test_auto_is_online_with_a_key_that_is_somebodys_or_that_nobody_can_ask_about(wandb_service, monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "keys").write_text(f"machine 127.0.0.1 login user password {GOOD}\n")
    assert available_mode("auto") == "offline"
    monkeypatch.setenv("NETRC", str(tmp_path / "keys"))
    assert available_mode("auto") == available_mode("online") == "online"
    monkeypatch.setenv("WANDB_API_KEY", REFUSED)
    assert available_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    assert available_mode("auto") == "online"


@pytest.mark.parametrize("mode", ["auto", "online"])
def test_a_refused_key_keeps_the_run_offline_and_says_what_to_do(wandb_service, monkeypatch, tmp_path, caplog, mode):
    monkeypatch.setenv("WANDB_API_KEY", REFUSED)
    root, experiment, done = Root(tmp_path), make_experiment(mode), []
    run = run_id(experiment, ARM)
    with forwarded(root, experiment, POOL, ARM):
        write_metrics(root, run, [1, 2])
        done.append("trained")
    (file,) = root.path(f"runs/{run}/wandb").glob("offline-run-*/run-*.wandb")
    _, history = records(file)
    assert [row["step"] for row in history if "train/loss" in row] == [1, 2]
    assert done == ["trained"] and "wandb login --relogin" in caplog.text
    assert REFUSED not in caplog.text


def test_deciles_are_series_of_their_own():
    line = {"kind": "eval", "step": 5, "time": 1.0, "bpb": 1.0, "tokens": 9, "bpb_by_decile": [0.5, None]}
    assert as_logged(line) == {"step": 5, "eval/bpb": 1.0, "eval/tokens": 9, "eval/decile_0": 0.5}
