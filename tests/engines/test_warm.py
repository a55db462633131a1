"""The runs of a comparison share one trainer process, and each ends as it would alone."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid

import psutil
import pytest

from tasks.engines import turns, warm
from tasks.engines.builtin import checkpoint
from tasks.engines.entry import get_ready, train
from tasks.engines.inputs import open_inputs
from tasks.errors import InputError, InterruptedRun, LostProcessError, TrainingError
from tasks.records import ledger
from tasks.records.job import Job
from tasks.records.layout import RunFolder
from tasks.records.metrics import read_metrics
from tasks.store.locks import hold, turn_lock
from tasks.store.root import Root
from tasks.store.settings import load_settings
from tests.engines.builtin import ranks
from tests.engines.builtin.conftest import ARM, LENGTH, POOL, make_experiment, spoil_weights, write_artifacts
from tests.waiting import within

LONG = {"batch_tokens": LENGTH, "save_every": 1_000, "eval_every": 1_000}
"""60 steps."""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """As the processes of `ranks` have it: sums come out alike."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A root for all tests of this file: one trainer serves it. What is opened by its URL loads settings, for which it would be another's."""
    load_settings()
    root = Root(tmp_path_factory.mktemp("warm"))
    write_artifacts(root)
    yield root
    with contextlib.suppress(FileNotFoundError, psutil.NoSuchProcess):
        for run in root.path("runs").iterdir():
            psutil.Process(json.loads((run / ".lock").read_text())["pid"]).kill()


def together(root, seed, stop=lambda: False, **training):
    return train(root, make_experiment(seed, **training), POOL, ARM, comparison="one-or-other", stop=stop)


def job_of(root, seed, **training):
    return Job.of(root, make_experiment(seed, **training), POOL, ARM)


def trainer_of(root, seed, **training):
    """The process that trained a run last."""
    return json.loads(root.path(RunFolder(job_of(root, seed, **training).run).file(".lock")).read_text())["pid"]


def lines_of(root, seed, **training):
    return read_metrics(root.path(RunFolder(job_of(root, seed, **training).run).file("metrics.jsonl")))


def in_training(root, seed, **training):
    """Whether this attempt has made a step."""
    lines = lines_of(root, seed, **training)
    return bool(lines) and lines[-1]["kind"] == "train"


def when_it_trains(root, seed, act, **training):
    """A `stop` that never stops and acts once the run has made a step."""
    acted = []

    def stop():
        if not acted and in_training(root, seed, **training):
            acted.append(act())
        return False

    return stop


def weights_of(root, seed, **training):
    """The bits that the last checkpoint holds of weights and optimizer."""
    run = job_of(root, seed, **training).run
    last = checkpoint.find(root, run, open_inputs(root, job_of(root, seed, **training)).by_role)
    held = {**last.model(), **{f"moments of {name}": tensor for name, tensor in last.shards()[0]["optimizer"].items()}}
    return {name: tensor.numpy().tobytes() for name, tensor in held.items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A root with two runs that were trained in processes of their own."""
    root = Root(tmp_path_factory.mktemp("alone"))
    write_artifacts(root)
    ranks.train(root, job_of(root, 2))
    ranks.train(root, job_of(root, 9, **LONG))
    return root


def test_a_second_run_in_the_process_has_the_bits_of_a_run_alone(shared, alone):
    first, second = together(shared, 1), together(shared, 2)
    assert trainer_of(shared, 1) == trainer_of(shared, 2) != trainer_of(alone, 2)
    assert weights_of(shared, 2) == weights_of(alone, 2) != weights_of(shared, 1)
    cold = alone.open(job_of(alone, 2).result)
    assert (second.path / "scores.parquet").read_bytes() == (cold.path / "scores.parquet").read_bytes()
    assert first.facts["bpb"] != second.facts["bpb"]
    waited = [
        line["seconds"] for seed in (1, 2) for line in lines_of(shared, seed) if line.get("event") == "first_step"
    ]
    assert max(waited) < time.time() - psutil.Process(trainer_of(shared, 1)).create_time()
    assert "step 15 of 15" in shared.path(RunFolder(job_of(shared, 2).run).file("log.txt")).read_text()


def test_one_that_is_stopped_and_one_that_diverges_end_alone(shared):
    """A weight of a checkpoint that is no number stands for any divergence."""
    with pytest.raises(InterruptedRun, match="saved a checkpoint"):
        together(shared, 3, stop=lambda: in_training(shared, 3, **LONG), **LONG)
    run = RunFolder(job_of(shared, 3, **LONG).run)
    (folder,) = shared.path(run.checkpoints).glob("step_*")
    spoil_weights(folder)
    with pytest.raises(TrainingError, match=r"The loss of step .* is nan"):
        together(shared, 3, **LONG)
    with pytest.raises(InputError, match="precision=bf16 needs a GPU"):
        together(shared, 3, precision="bf16")
    together(shared, 4)
    assert trainer_of(shared, 3, **LONG) == trainer_of(shared, 4)


CALLER = """
import sys
from pathlib import Path
from tests.engines.test_warm import LONG, together
from tasks.store.root import Root
together(Root(Path(sys.argv[1])), 9, **LONG)
"""


def test_a_killed_caller_leaves_a_checkpoint_and_a_killed_trainer_is_replaced(shared, alone):
    caller = subprocess.Popen([sys.executable, "-c", CALLER, str(shared.folder)])
    while not in_training(shared, 9, **LONG):
        assert caller.poll() is None
        time.sleep(0.005)
    caller.kill()
    caller.wait()
    first = trainer_of(shared, 9, **LONG)
    kill = when_it_trains(shared, 9, lambda: os.kill(first, signal.SIGKILL), **LONG)
    with pytest.raises(LostProcessError, match="was lost"):
        together(shared, 9, stop=kill, **LONG)
    together(shared, 9, **LONG)
    assert trainer_of(shared, 9, **LONG) != first
    events = [line["event"] for line in lines_of(shared, 9, **LONG) if line["kind"] == "event"]
    assert events.count("interrupted") == 1 and events.count("resumed") == 2
    assert weights_of(shared, 9, **LONG) == weights_of(alone, 9, **LONG)


@pytest.mark.slow
def test_an_error_that_nobody_foresaw_ends_the_process_with_its_run(shared):
    """A holdout that cannot be read stands for an error of CUDA."""
    together(shared, 5)
    documents = shared.path(f"pools/{POOL}/evaluation") / "documents.parquet"
    content = documents.read_bytes()
    documents.write_bytes(bytes(len(content)))
    with pytest.raises(TrainingError, match=r"Parquet magic bytes not found"):
        together(shared, 6)
    documents.write_bytes(content)
    together(shared, 6)
    assert trainer_of(shared, 6) != trainer_of(shared, 5)


@pytest.mark.slow
def test_another_environment_gets_another_process(shared, monkeypatch):
    together(shared, 7)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    together(shared, 8)
    assert trainer_of(shared, 7) != trainer_of(shared, 8)
    assert within(20, lambda: not psutil.pid_exists(trainer_of(shared, 7))), "it hangs up before it ends"


def test_what_callers_of_one_trainer_tell_their_own_servers_means_nothing_to_it(monkeypatch):
    place = turns.Turn(("GPU-a",), gpus=True)
    known = warm.trainer_environment(place)
    for name in ("WANDB_SERVICE", "WANDB_MODE", "PREFECT_API_URL", "PWD"):
        monkeypatch.setenv(name, "of this caller")
    assert warm.trainer_environment(place) == known
    monkeypatch.setenv("RAYON_NUM_THREADS", "7")
    assert warm.trainer_environment(place) != known


def test_a_folder_that_others_can_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "Path", lambda _: tmp_path / "open")
    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(InputError, match="not a folder of this account alone"):
        warm._address("gpu")


@pytest.fixture
def drivers_tool(tmp_path, monkeypatch):
    """A script that prints UUIDs stands for nvidia-smi."""

    def show(*gpus):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("#!/bin/sh\n" + "".join(f"echo '{gpu}'\n" for gpu in gpus))
        tool.chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("tasks.store.locks.GPU_LOCKS", tmp_path / "locks")
    return show


def test_the_first_run_finds_the_trainer_that_was_got_ready_for_it(shared, drivers_tool):
    free, taken, other = (f"GPU-{uuid.uuid4()}" for _ in range(3))
    drivers_tool(taken, free, other)
    training = make_experiment(31, device="auto").training

    def ready():
        get_ready(shared, training, 1)
        with warm.Line(warm._address(free)) as line:
            return line._next(60)["pid"]

    with hold(turn_lock(taken), taken, "another run"):
        first = ready()
    drivers_tool(free, other)
    assert ready() == first
    for idle in (taken, other):
        with pytest.raises(OSError):
            warm.Line(warm._address(idle))
    drivers_tool(free)
    assert ready() == first
    together(shared, 31, device="auto")
    assert trainer_of(shared, 31, device="auto") == first


def test_a_run_is_patient_with_a_trainer_that_loads(shared, monkeypatch):
    monkeypatch.setattr(warm, "PATIENCE", 0.1)
    turn = turns.Turn((f"{uuid.uuid4()}",), gpus=False)
    identity = warm.identity(shared.folder, warm.trainer_environment(turn))

    def answer_late(listener):
        connection, _ = listener.accept()
        time.sleep(1)
        with connection:
            connection.sendall(json.dumps({"pid": 1, "identity": identity}).encode() + b"\n")

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(warm._address(turn.places[0])))
        listener.listen()
        threading.Thread(target=answer_late, args=(listener,)).start()
        line = warm._line_to(shared.folder, turn, shared.path("log.txt"), lambda: False)
    assert line is not None
    line.close()
    warm._address(turn.places[0]).unlink()


def test_runs_take_the_gpus_that_are_free_and_wait_for_the_others(shared, drivers_tool, monkeypatch):
    drivers_tool("GPU-aa-1", "GPU-bb-2", "GPU-cc-3")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-aa")
    assert turns.visible_gpus() == ["GPU-cc-3", "GPU-aa-1"]
    with turns.turn(shared, "a", "auto") as one, turns.turn(shared, "b", "cuda") as other:
        assert one.environment == {"CUDA_VISIBLE_DEVICES": "GPU-cc-3"} and other.places == ("GPU-aa-1",)
        with turns.turn(shared, "c", "cpu") as cpu:
            assert cpu.environment == {}
        asked = []
        with pytest.raises(InterruptedRun, match="before its turn"):
            turns.turn(shared, "d", "cuda", stop=lambda: asked.append(1) or len(asked) > 2).__enter__()
    with turns.turn(shared, "e", "cuda", count=2) as both:
        assert both.places == ("GPU-cc-3", "GPU-aa-1")


def test_what_the_drivers_tool_says_besides_is_no_gpu(drivers_tool):
    drivers_tool("[Unknown Error]", "GPU-bb-2")
    assert turns.visible_gpus({}) == turns.visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == ["GPU-bb-2"]
    drivers_tool("No devices were found")
    assert turns.visible_gpus({}) == []


def test_what_a_run_waited_for_its_turn_costs_nothing(shared, monkeypatch, tmp_path):
    monkeypatch.setattr("tasks.store.locks.GPU_LOCKS", tmp_path / "locks")
    opened = ledger.open_entry(shared, make_experiment(21), POOL, ARM)
    first = turns.turn(shared, "before", "cpu")
    first.__enter__()
    threading.Timer(0.3, first.__exit__, (None, None, None)).start()
    with turns.turn(shared, opened.run, "cpu"):
        began = ledger.find(shared, opened.run).last.started
    assert began >= opened.last.started + 0.3
    with turns.turn(shared, opened.run, "cpu"):
        assert ledger.find(shared, opened.run).last.started == began
