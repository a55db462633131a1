"""The overlay's parts by themselves: even files, windows, the reordered loop, whole checkpoints."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.engines.builtin.evaluation import EncodedHoldout
from tasks.engines.nanochat import overlay
from tasks.records.layout import PoolFolder
from tasks.spec import Pool
from tasks.store.root import Root


@settings(max_examples=60, deadline=None)
@given(rows=st.integers(1, 60), group=st.integers(1, 70), world=st.integers(1, 8))
def test_every_rank_gets_an_equal_part_of_any_file(tmp_path_factory, rows: int, group: int, world: int) -> None:
    path = tmp_path_factory.getbasetemp() / "even.parquet"
    pq.write_table(pa.table({"text": [str(row) for row in range(rows)], "id": range(rows)}), path, row_group_size=group)
    file = overlay.EvenFile(path, world)
    assert file.num_row_groups % world == 0
    parts = [file.read_row_group(index).column("text").to_pylist() for index in range(file.num_row_groups)]
    assert [int(text) for part in parts for text in part] == list(range(rows))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@settings(max_examples=60, deadline=None)
@given(lengths=st.lists(st.integers(0, 200), min_size=1, max_size=6), sequence=st.sampled_from([16, 32, 64]))
def test_windows_are_those_of_the_built_in_evaluation(lengths: list[int], sequence: int) -> None:
    offsets = np.cumsum(lengths) - np.array(lengths)
    documents = pa.table({"offset": pa.array(offsets, pa.int64()), "tokens": pa.array(lengths, pa.int64())})
    windows = EncodedHoldout(np.zeros(sum(lengths), "<u2"), documents, bos=0).windows(sequence)
    theirs = {
        tuple(map(int, row)) for row in zip(windows.document, windows.context, windows.start, windows.stop, strict=True)
    }
    ours = overlay.windows_of(lengths, sequence)
    assert len(ours) == len(theirs) and set(ours) == theirs
    for document, length in enumerate(lengths):
        scored = [place for number, _, start, stop in ours if number == document for place in range(start, stop)]
        assert scored == list(range(length))


@pytest.mark.parametrize("rows", [1, 3])
def test_batches_are_those_of_the_built_in_evaluation(root: Root, pool_id: str, rows: int) -> None:
    artifact = root.open(f"pools/{pool_id}/evaluation")
    strata = root.open(PoolFolder(pool_id).strata(Pool().score))
    own = overlay.HoldoutEvaluation(
        {
            "evaluation": str(artifact.path),
            "strata": str(strata.path / "strata.parquet"),
            "rows": rows,
            "sequence": 64,
            "bos": artifact.facts["bos"],
            "state": "unused",
        }
    )
    holdout = EncodedHoldout.of(artifact)
    windows = holdout.windows(64)
    for place in range(len(windows)):
        key = tuple(int(column[place]) for column in (windows.document, windows.context, windows.start, windows.stop))
        inputs, targets = own.batch([key], "cpu")
        wanted = holdout.batch(windows, range(place, place + 1), (1, 64))
        assert torch.equal(inputs[:1], wanted[0]) and torch.equal(targets[:1], wanted[1])
        assert (targets[1:] == -1).all()
    assert len(windows) == len(own.windows) > 50


LOOP = """
step = 0
while True:
    last_step = step == 4
    if last_step or step % 2 == 0:
        evaluate_bpb(step)
    if last_step or (step > 0 and step % 2 == 0):
        save_checkpoint(step)
    if last_step:
        break
    train(step)
    step += 1
"""


def run_loop(stop_at: int | None) -> list[str]:
    done: list[str] = []
    step: dict = {}
    functions = {
        name: lambda at, name=name: done.append(f"{name} {at}") for name in ("evaluate_bpb", "save_checkpoint", "train")
    }
    step.update(functions, fabrating_stopping=lambda: step["step"] == stop_at)
    try:
        exec(compile(overlay.save_first(ast.parse(LOOP)), "loop", "exec"), step)
    except SystemExit as end:
        done.append(f"status {end.code}")
    return done


def test_a_checkpoint_is_saved_before_the_evaluation_of_its_step() -> None:
    assert run_loop(None) == [
        *("evaluate_bpb 0", "train 0", "train 1", "save_checkpoint 2", "evaluate_bpb 2", "train 2", "train 3"),
        *("save_checkpoint 4", "evaluate_bpb 4"),
    ]


def test_a_request_to_stop_saves_and_ends_between_two_steps() -> None:
    assert run_loop(3)[-3:] == ["train 2", "save_checkpoint 3", "status 75"]


def test_a_script_with_another_loop_is_refused() -> None:
    with pytest.raises(SystemExit, match="run the check"):
        overlay.save_first(ast.parse(LOOP.replace("evaluate_bpb", "evaluate")))


def test_a_checkpoint_is_marked_whole_by_its_metadata(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, state = {"w": torch.arange(3.0)}, {"momentum": torch.zeros(2)}
    overlay.save_checkpoint(str(tmp_path), 250, weights, state, {"step": 250})
    meta = json.loads((tmp_path / "meta_000250.json").read_text())
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("*.pt")}
    assert meta == {"step": 250, "fabrating": {"ranks": 1, "files": sizes}}
    assert sorted(sizes) == ["model_000250.pt", "optim_000250_rank0.pt"]
    assert torch.equal(torch.load(tmp_path / "model_000250.pt", weights_only=True)["w"], weights["w"])
    assert [json.loads(line[11:])["event"] for line in capsys.readouterr().out.splitlines()] == ["saving", "saved"]


def test_what_cannot_be_written_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail(path: str) -> None:
        Path(path).write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        overlay.write_whole(tmp_path / "file", fail)
    assert list(tmp_path.iterdir()) == []


def test_upstream_cannot_choose_a_tf32_interface() -> None:
    seen = overlay.WithoutPrecision(torch)
    before = torch.get_float32_matmul_precision()
    seen.backends.fp32_precision = "tf32"
    seen.set_float32_matmul_precision("high")
    assert torch.get_float32_matmul_precision() == before
    assert torch.backends.fp32_precision == "none"
    assert seen.backends.mps.is_available() == torch.backends.mps.is_available()
    assert seen.float32 is torch.float32


TF32 = """
import torch
from tasks.engines.nanochat.overlay import WithoutPrecision
{upstream}.backends.fp32_precision = "tf32"
{overlay}
print(torch.backends.cuda.matmul.allow_tf32)
"""


def test_the_tf32_interface_of_old_upstream_clashes_with_the_one_that_inductor_reads_unless_hooked() -> None:
    def run(upstream: str, overlay: str) -> subprocess.CompletedProcess[str]:
        program = TF32.format(upstream=upstream, overlay=overlay)
        return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert "mix of the legacy and new APIs" in run("torch", "").stderr
    hooked = run("WithoutPrecision(torch)", 'torch.set_float32_matmul_precision("high")')
    assert hooked.stdout.strip() == "True", hooked.stderr
