"""Real trainings by real upstream commits on this machine's CPU, whole and interrupted in every way.

They need a checkout (see conftest.py) and take half a minute each.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from tasks.engines.entry import train
from tasks.engines.nanochat import watch
from tasks.engines.nanochat.checkpoints import folder_of, whole_steps
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.errors import InputError, InterruptedRun, LostProcessError, TrainingError
from tasks.records.layout import ArmFolder, run_id
from tasks.records.metrics import read_metrics
from tasks.records.result import read_samples
from tasks.spec import Arm, Experiment, Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tests.waiting import within

pytestmark = pytest.mark.slow
STEPS = 8


@pytest.fixture
def experiment(root: Root, arm_id: str) -> Callable[..., Experiment]:
    """A training on the whole arm in so many steps, as nanochat trains no less."""

    def make(steps: int = STEPS, **changes) -> Experiment:
        rows = root.find(ArmFolder(arm_id).packed(64, "crop")).facts["rows"]
        settings = {
            "engine": "nanochat",
            "packing": "crop",
            "depth": 2,
            "sequence_length": 64,
            "batch_tokens": rows // steps // 2 * 2 * 64,
            "precision": "fp32",
            "eval_every": 4,
            "save_every": 3,
            "device": "cpu",
            "window_pattern": "SL",
        }
        return Experiment(arm=Arm(name="arm"), training=Training(**{**settings, **changes}))

    return make


@pytest.fixture
def engine(
    root: Root, pool_id: str, arm_id: str, nanochat_python: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Artifact]:
    """`train` on the prepared arm with the upstream of a folder."""

    def run(source: Path, what: Experiment, progress=lambda *_: None) -> Artifact:
        monkeypatch.setenv("FABRATING_NANOCHAT_HOME", str(source))
        monkeypatch.setenv("FABRATING_NANOCHAT_PYTHON", nanochat_python)
        return train(root, what, pool_id, arm_id, progress)

    return run


def at_step(step: int, act: Callable[[], object]) -> Callable[..., None]:
    """A progress that acts once, when a step is reached."""
    done = []

    def progress(stage: str, reached: int, total: int, counters: dict) -> None:
        if reached >= step and not done:
            done.append(act())

    return progress


def ranks_of_nanochat() -> list[psutil.Process]:
    """Our children that run the overlay, in the order in which they were started."""
    children = psutil.Process().children()
    return sorted((p for p in children if "overlay.py" in " ".join(p.cmdline())), key=lambda p: p.create_time())


def test_an_arm_is_trained_scored_and_recorded(
    root: Root, pool_id: str, arm_id: str, engine, experiment, upstream: Path
) -> None:
    what = experiment()
    run = run_id(what, arm_id)
    seen: list[tuple[int, int]] = []
    result = engine(upstream, what, lambda stage, done, total, counters: seen.append((done, total)))
    facts = result.facts
    assert seen[-1] == (STEPS, STEPS)
    assert (facts["steps"], facts["engine"], facts["scored_by"]) == (STEPS, "nanochat", "builtin")
    assert facts["rows_left"] < facts["batch_tokens"] // 64, "the whole arm"
    assert 0.2 < facts["text_share"] < 0.8 and facts["mean_score"] == 1.0, "cropped"
    assert facts["bpb"] == pytest.approx(facts["bpb_nanochat"], abs=1e-5)
    scores = pq.read_table(result.path / "scores.parquet")
    holdout = root.open(f"pools/{pool_id}/evaluation")
    assert scores.column_names == ["document", "cluster", "score", "decile", "bytes", "tokens", "nats", "source"]
    assert scores.num_rows == holdout.facts["documents"]
    samples = read_samples(result.path / "samples.json")
    assert len(samples) == 4 and all(sample["prompt"] and sample["text"] for sample in samples)
    kept = np.fromfile(root.path(f"runs/{run}/nanochat/fabrating/nats.f64"))
    np.testing.assert_allclose(scores["nats"].to_numpy(), kept, rtol=1e-5)
    lines = read_metrics(result.path / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 4, 8]
    assert lines[-2]["bpb"] == pytest.approx(facts["bpb"], abs=1e-5)
    assert len(lines[-2]["bpb_by_decile"]) == 10
    assert dict(result.manifest.spec) == what.identity()
    assert {"packed", "tokenizer", "evaluation", "strata", "arm", "pool"} == set(result.manifest.inputs)
    assert whole_steps(folder_of(root, run)) == [3, 6, 8]
    assert root.open(f"runs/{run}/checkpoints/step_000008", checksums=True).facts["step"] == STEPS
    assert not root.path(f"runs/{run}/wandb").exists()
    assert engine(upstream, what).reused


def test_the_ratio_is_that_of_the_tokens_to_the_parameters(
    root: Root, arm_id: str, engine, experiment, upstream: Path
) -> None:
    what = experiment(steps=2, eval_every=100)
    engine(upstream, what)
    log = root.path(f"runs/{run_id(what, arm_id)}/log.txt").read_text()
    meta = folder_of(root, run_id(what, arm_id)) / "meta_000002.json"
    tokens = 2 * what.training.batch_tokens
    ratio = json.loads(meta.read_text())["user_config"]["target_param_data_ratio"]
    assert ratio == pytest.approx(tokens / (393_228 + 65_536), rel=1e-5)
    assert f"Total number of training tokens: {tokens:,}" in log


LOADER = """
    import json, sys
    from nanochat.dataloader import tokenizing_distributed_data_loader_with_state_bos_bestfit as loader
    from nanochat.tokenizer import get_tokenizer
    inputs, targets, state = next(loader(get_tokenizer(), 4, 64, split="train", device="cpu"))
    print(json.dumps({"shape": list(inputs.shape)}))
    """


@pytest.mark.parametrize("which", ["upstream", "old_upstream"])
def test_unpatched_the_second_rank_waits_for_ever_patched_both_finish(
    which: str,
    request,
    root: Root,
    pool_id: str,
    arm_id: str,
    engine,
    experiment,
    run_upstream,
    tmp_path: Path,
    monkeypatch,
) -> None:
    source = request.getfixturevalue(which)
    text = root.path(f"arms/{arm_id}/text")
    assert {pq.ParquetFile(shard).num_row_groups for shard in sorted(text.glob("shard_*"))[:-1]} == {1}
    base = tmp_path / "base"
    export_tokenizer(root.open(f"pools/{pool_id}/tokenizer").path, base)
    for name in ("base_data", "base_data_climbmix"):
        (base / name).mkdir()
        for shard in text.glob("shard_*"):
            shutil.copy(shard, base / name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        monkeypatch.setenv("LOCAL_RANK", rank)
        if rank == "0":
            assert run_upstream(source, base, LOADER)["shape"] == [4, 64]
        else:
            with pytest.raises(subprocess.TimeoutExpired):
                run_upstream(source, base, LOADER, seconds=20)
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    result = engine(source, experiment(steps=3, gpus=2))
    assert result.facts["gpus"] == 2 and result.facts["steps"] == 3
    assert result.facts["scored_by"] == ("builtin" if which == "upstream" else "nanochat")
    assert result.facts["commit"].startswith("92d63d4" if which == "upstream" else ("4a6e47b", "1ddaad1"))
    assert result.facts["bpb"] == pytest.approx(result.facts["bpb_nanochat"], abs=1e-5)


def test_a_lost_rank_and_a_request_to_stop_are_gone_on_from(
    root: Root, arm_id: str, engine, experiment, upstream: Path
) -> None:
    what = experiment()
    run = run_id(what, arm_id)
    with pytest.raises(LostProcessError, match="killed by signal 9") as lost:
        engine(upstream, what, at_step(5, lambda: ranks_of_nanochat()[0].kill()))
    kept = whole_steps(folder_of(root, run))[-1]
    assert kept in (3, 6), "step 6: it was quicker than the signal"
    assert f"checkpoint is that of step {kept}" in str(lost.value)
    with pytest.raises(InterruptedRun, match="asked to stop"):
        engine(upstream, what, at_step(5, lambda: ranks_of_nanochat()[0].terminate()))
    stopped = whole_steps(folder_of(root, run))[-1]
    assert 5 <= stopped < STEPS
    with pytest.raises(InputError, match=r"gpus is 2, but .* started on 1"):
        engine(upstream, experiment(gpus=2))
    result = engine(upstream, what)
    lines = read_metrics(result.path / "metrics.jsonl")
    assert [line["step"] for line in lines if line["kind"] == "train"] == list(range(1, STEPS + 1))
    assert [line["step"] for line in lines if line["kind"] == "eval"] == [0, 4, 8]
    assert [line["step"] for line in lines if line.get("event") == "resumed"] == [kept, stopped]


PROGRAM = """
import sys
from tasks.engines.entry import train
from tasks.spec import Experiment
from tasks.store.root import Root
train(Root(sys.argv[1]), Experiment.model_validate_json(sys.argv[2]), sys.argv[3], sys.argv[4])
"""


def test_when_the_launcher_is_killed_the_ranks_save_and_end(
    root: Root, pool_id: str, arm_id: str, engine, experiment, upstream: Path, nanochat_python: str
) -> None:
    what = experiment(steps=130, eval_every=1000, save_every=1000)
    run = run_id(what, arm_id)
    environment = {**os.environ, "FABRATING_NANOCHAT_HOME": str(upstream), "FABRATING_NANOCHAT_PYTHON": nanochat_python}
    words = [sys.executable, "-c", PROGRAM, str(root.folder), what.model_dump_json(), pool_id, arm_id]
    launcher = subprocess.Popen(words, env=environment)
    metrics_file = root.path(f"runs/{run}/metrics.jsonl")
    trained = lambda: any(line["kind"] == "train" for line in read_metrics(metrics_file))  # noqa: E731
    assert within(120, lambda: launcher.poll() is not None or trained())
    ranks = psutil.Process(launcher.pid).children()
    launcher.kill()
    launcher.wait()
    gone, alive = psutil.wait_procs(ranks, timeout=60)
    assert len(gone) == 1 and not alive
    assert len(whole_steps(folder_of(root, run))) == 1


def test_a_hang_ends_the_run_with_its_cause(
    engine, experiment, upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LEAST", 4.0)
    monkeypatch.setattr(watch, "TIMES", 4.0)
    began: list[float] = []

    def stop() -> None:
        began.append(time.monotonic())
        os.kill(ranks_of_nanochat()[1].pid, signal.SIGSTOP)

    # Far from a save: after one, the silence of an evaluation may be ten minutes long.
    what = experiment(steps=130, gpus=2, eval_every=1000, save_every=20)
    with pytest.raises(
        TrainingError, match=r"hangs: nothing for .*rank 1 does not answer.*checkpoint is that of step 20"
    ):
        engine(upstream, what, at_step(25, stop))
    assert time.monotonic() - began[0] < 60
    assert ranks_of_nanochat() == []
