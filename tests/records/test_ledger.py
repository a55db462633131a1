import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tasks.errors import DamagedError, InputError
from tasks.records import ledger
from tasks.records.code import PREPARATION_VERSION, TRAINING_VERSION, commit
from tasks.records.layout import run_id
from tasks.reports.ledger import COLUMNS, table
from tasks.spec import Arm, Experiment, Training
from tasks.store.machine import machine
from tasks.store.root import Root

EXPERIMENT = Experiment(arm=Arm(name="top16"), training=Training(gpus=2, dollars_per_gpu_hour=3.0), seed=7)


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


def opened(root):
    return ledger.open_entry(root, EXPERIMENT, "pool-1", "top16-1").run


def metrics(root, run, *lines):
    path = root.path(f"runs/{run}") / "metrics.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_an_entry_is_named_as_its_run_and_says_who_runs_it(root):
    run = opened(root)
    assert run == run_id(EXPERIMENT, "top16-1")
    (entry,) = ledger.entries(root)
    assert (entry.state, entry.seed, entry.arm, entry.pool_id) == ("running", 7, "top16", "pool-1")
    assert entry.experiment == EXPERIMENT


def test_finish_takes_over_the_result_and_the_cost_of_all_gpus(root):
    run = opened(root)
    facts = {"bpb": 1.1, "steps": 90, "tokens": 9_000, "tokens_per_second": 50.0, "documents": 3}
    entry = ledger.finish(root, run, "completed", facts=facts)
    spent = entry.last.finished - entry.last.started
    assert entry.dollars == pytest.approx(spent / 3600 * 2 * 3.0)
    (row,) = table(ledger.entries(root))
    assert (row["bpb"], row["step"], row["state"], row["attempts"], row["gpus"]) == (1.1, 90, "completed", 1, 2)
    assert set(row) == set(COLUMNS)


def test_a_cpu_costs_no_gpu_hours(root):
    run = opened(root)
    entry = ledger.finish(root, run, "completed", facts={"device": "cpu", "bpb": 1.0})
    assert entry.hours > 0 and entry.dollars == 0


def test_a_run_that_has_not_begun_costs_nothing_yet(root):
    run = opened(root)
    path = root.path(f"runs/{run}/run.json")
    path.write_text(path.read_text().replace(str(ledger.find(root, run).last.started), str(time.time() - 50)))
    assert (ledger.find(root, run).hours, ledger.find(root, run).dollars) == (0, 0)
    metrics(root, run, {"step": 0, "kind": "event", "time": time.time(), "event": "started", "device": "NVIDIA H100"})
    assert ledger.find(root, run).dollars > 0


def test_a_run_on_a_cpu_costs_nothing_while_it_goes_on_either(root):
    run = opened(root)
    began = {"step": 0, "kind": "event", "time": time.time() + 1, "event": "started", "device": "cpu"}
    metrics(root, run, began, {"step": 1, "kind": "train", "time": time.time() + 1, "loss": 3.0})
    (entry,) = ledger.entries(root)
    assert (entry.state, entry.step, entry.dollars) == ("running", 1, 0)


def test_a_second_attempt_keeps_the_first_and_closes_it_at_its_last_sign_of_life(root):
    run = opened(root)
    seen = time.time() + 1800
    metrics(root, run, {"step": 5, "kind": "train", "time": seen, "tokens": 10, "loss": 3.0})
    opened(root)
    entry = ledger.finish(root, run, "completed", facts={})
    assert [attempt.state for attempt in entry.attempts] == ["lost", "completed"]
    assert entry.attempts[0].finished == seen
    assert entry.hours == pytest.approx(0.5, abs=0.01)


def test_a_running_entry_shows_live_numbers_and_forgets_a_torn_line(root):
    run = opened(root)
    path = metrics(
        root,
        run,
        {"step": 10, "kind": "eval", "time": time.time(), "tokens": 20, "bpb": 2.5},
        {"step": 12, "kind": "train", "time": time.time(), "tokens": 24, "loss": 3.0, "tokens_per_second": 8.0},
    )
    with path.open("a") as file:
        file.write('{"step": 13, "kind": "tr')
    (entry,) = ledger.entries(root)
    assert (entry.state, entry.step, entry.bpb, entry.tokens_per_second) == ("running", 12, 2.5, 8.0)


def test_an_entry_whose_process_is_gone_is_lost(root):
    run = opened(root)
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    path = root.path(f"runs/{run}") / "run.json"
    entry = json.loads(path.read_text())
    entry["attempts"][0]["pid"] = child.pid
    path.write_text(json.dumps(entry))
    assert ledger.entries(root)[0].state == "lost"


def test_an_entry_whose_process_was_killed_after_its_result_is_completed(root):
    run = opened(root)
    path = root.path(f"runs/{run}") / "run.json"
    entry = json.loads(path.read_text())
    entry["attempts"][0].update(started=time.time() - 3600, pid=2**22 + 1)  # above any process
    path.write_text(json.dumps(entry))
    facts = {"bpb": 1.5, "steps": 9, "device": "NVIDIA H200"}
    root.build(f"runs/{run}/result", lambda work: work.facts.update(facts), spec={})
    entry = ledger.find(root, run)
    assert (entry.state, entry.last.state, entry.bpb, entry.step) == ("completed", "completed", 1.5, 9)
    assert entry.hours == pytest.approx(1, abs=0.01) and entry.dollars == pytest.approx(6, abs=0.1)


@pytest.mark.parametrize("known", ["another", None])
def test_a_process_of_another_machine_of_this_name_is_not_judged_here(root, known):
    """None: an entry of the time when it held the hostname alone."""
    run = opened(root)
    path = root.path(f"runs/{run}") / "run.json"
    entry = json.loads(path.read_text())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    (attempt,) = entry["attempts"]
    attempt.update(machine=known, pid=child.pid)
    if known is None:
        del attempt["machine"]
    path.write_text(json.dumps(entry))
    assert ledger.entries(root)[0].state == "running"
    attempt.update(started=time.time() - 3600)
    path.write_text(json.dumps(entry))
    assert ledger.entries(root)[0].state == "silent"


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="namespaces need root and util-linux")
def test_containers_of_one_host_are_machines_of_their_own():
    command = [sys.executable, "-c", "from tasks.store.machine import machine; print(machine())"]
    names = [
        subprocess.run([*before, *command], check=True, capture_output=True, text=True).stdout.strip()
        for before in ([], [], ["unshare", "--pid", "--fork", "--mount-proc"])
    ]
    assert names[0] == names[1] == machine() != names[2]


def test_a_failed_run_keeps_what_it_had_reached(root):
    run = opened(root)
    start = {"step": 0, "kind": "event", "time": time.time(), "event": "start", "steps": 500}  # so many are to come
    metrics(root, run, start, {"step": 40, "kind": "train", "time": time.time(), "tokens": 400, "loss": 3.0})
    entry = ledger.finish(root, run, "failed", error="no space left")
    assert (entry.step, entry.tokens, entry.error) == (40, 400, "no space left")


def test_an_attempt_says_which_code_it_ran(root):
    opened(root)
    (entry,) = ledger.entries(root)
    assert (entry.last.preparation_version, entry.last.training_version) == (PREPARATION_VERSION, TRAINING_VERSION)
    assert entry.last.commit == commit()


def test_an_entry_of_before_there_were_versions_is_read_and_goes_on(root):
    run = opened(root)
    path = root.path(f"runs/{run}") / "run.json"
    entry = json.loads(path.read_text())
    del entry["format"]
    entry["group"] = "pool-1"
    (attempt,) = entry["attempts"]
    del attempt["preparation_version"], attempt["training_version"]
    attempt["source"] = "0123456789"
    path.write_text(json.dumps(entry))
    assert ledger.find(root, run).last.training_version is None
    opened(root)
    assert [attempt.training_version is None for attempt in ledger.find(root, run).attempts] == [True, False]


def test_an_attempt_that_another_host_took_over_closes_itself_alone(root):
    run = opened(root)
    path = root.path(f"runs/{run}") / "run.json"
    entry = json.loads(path.read_text())
    (own,) = entry["attempts"]
    other = own | {"machine": "another one", "host": "gpu2"}
    path.write_text(json.dumps(entry | {"attempts": [own | {"state": "lost"}, other]}))
    entry = ledger.finish(root, run, "failed", error="taken over")
    assert (entry.state, [each.state for each in entry.attempts]) == ("running", ["failed", "running"])
    entry = ledger.finish(root, run, "completed", facts={"bpb": 1.0})
    assert (entry.state, entry.bpb) == ("completed", 1.0)


def test_unknown_runs_and_damaged_entries_are_named(root):
    with pytest.raises(InputError, match="no run 'nobody'"):
        ledger.note_wandb(root, "nobody", "here")
    run = opened(root)
    (root.path(f"runs/{run}") / "run.json").write_text("{")
    with pytest.raises(DamagedError, match=r"run\.json cannot be read .*move this ledger entry away"):
        ledger.entries(root)
