"""Lines of nanochat's output, real ones and any others."""

import json
import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tasks.engines.nanochat.logs import Recorder, Step, Told, Validation, parse
from tasks.records.metrics import MetricsLog, read_metrics, speed

TODAY = (
    "step 00020/03000 (0.67%) | loss: 7.123 | lrm: 0.52 | dt: 3344.45ms | tok/sec: 156,763 | bf16_mfu: 51.36 "
    "| epoch: 1 pq: 0 rg: 2 | total time: 0.55m | eta: 166.0m"
)
BEFORE = "step 00005/00006 (83.33%) | loss: 6.227265 | lrm: 0.33 | dt: 1272.85ms | tok/sec: 402 | mfu: 0.00 | epoch: 1"


def test_a_step_of_today() -> None:
    assert parse(TODAY + "\n") == Step(21, 3000, 7.123, 0.52, 3.34445, 156_763, 0.5136)


def test_a_step_of_an_older_commit_on_a_cpu_has_no_mfu() -> None:
    assert parse(BEFORE) == Step(6, 6, 6.227265, 0.33, 1.27285, 402, None)


def test_a_loss_that_is_no_number_is_read_as_such() -> None:
    step = parse(TODAY.replace("7.123", "nan"))
    assert isinstance(step, Step) and math.isnan(step.loss)


def test_validation() -> None:
    assert parse("Step 00250 | Validation bpb: 0.912345") == Validation(250, 0.912345)


def test_peak_memory() -> None:
    assert parse("Peak memory usage: 73620.12MiB") == Told("memory", {"gpu_memory_bytes": 77196290949})
    assert parse("Peak memory usage: infMiB") is None


def test_an_event_of_the_overlay() -> None:
    assert parse('fabrating: {"event": "saved", "step": 3}\n') == Told("saved", {"step": 3})


@pytest.mark.parametrize(
    "line",
    [
        "",
        TODAY[:60],
        TODAY.replace("7.123", "7.1.23"),
        " " + TODAY,
        "Step 00250 | CORE metric: 0.1234",
        "Step 00250 | Validation bpb: ",
        "fabrating: {",
        "fabrating: []",
        'fabrating: {"event": 3}',
        "fabrating: " + "[" * 9_000,
        TODAY + "x" * 20_000,
    ],
)
def test_other_lines_are_nothing(line: str) -> None:
    assert parse(line) is None


PIECES = st.sampled_from(
    [
        *(
            "step ",
            "00020",
            "/",
            " (",
            "0.67",
            "%)",
            " | loss: ",
            "nan",
            " | lrm: ",
            " | dt: ",
            "ms",
            " | tok/sec: ",
            "1,2",
        ),
        *(
            " | bf16_mfu: ",
            "inf",
            "Step ",
            " | Validation bpb: ",
            "Peak memory usage: ",
            "MiB",
            "fabrating: ",
            '{"event": "x"}',
            "1e400",
            "--",
            "\n",
        ),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=25).map("".join)))
@example(TODAY.replace("156,763", ","))
@example(TODAY.replace("0.67", "e"))
def test_any_line_is_something_or_nothing_but_never_an_error(line: str) -> None:
    found = parse(line)
    assert found is None or isinstance(found, Step | Validation | Told)
    if isinstance(found, Step):
        assert found.done >= 1 and (found.mfu is None or found.mfu > 0)


@given(
    st.integers(0, 10**6),
    st.integers(1, 10**6),
    st.floats(0, 20),
    st.floats(0, 1),
    st.floats(1e-4, 1e4),
    st.integers(0, 10**8),
    st.floats(0.01, 99),
)
def test_what_nanochat_prints_is_read_back(
    index: int, total: int, loss: float, lrm: float, seconds: float, rate: int, mfu: float
) -> None:
    found = parse(
        f"step {index:05d}/{total:05d} ({100 * index / total:.2f}%) | loss: {loss:.6f} | lrm: {lrm:.2f} | "
        f"dt: {seconds * 1000:.2f}ms | tok/sec: {rate:,} | bf16_mfu: {mfu:.2f} | epoch: 1 pq: 0 rg: 2 | total time: 0.55m"
    )
    assert isinstance(found, Step)
    assert (found.done, found.total, found.tokens_per_second) == (index + 1, total, rate)
    assert found.loss == pytest.approx(loss, abs=1e-6) and found.lr_scale == pytest.approx(lrm, abs=0.01)
    assert found.seconds == pytest.approx(seconds, abs=1e-5) and found.mfu == pytest.approx(mfu / 100, abs=1e-4)


@given(st.dictionaries(st.text(max_size=8).filter(lambda k: k != "event"), st.integers() | st.text(), max_size=4))
def test_any_event_passes(values: dict) -> None:
    line = "fabrating: " + json.dumps({"event": "x", **values})
    assert parse(line) == Told("x", values)


def test_metrics_are_those_of_the_built_in_trainer(tmp_path: Path) -> None:
    metrics = MetricsLog(tmp_path / "metrics.jsonl")
    recorder = Recorder(metrics, batch_tokens=1_000)
    metrics.begin(0)
    deciles = [1.0, None, *[0.5] * 8]
    signs = [
        Told("evaluation", {"bpb": 0.9, "bpb_by_decile": deciles}),
        Validation(0, 0.9),
        Step(1, 10, 7.0, 0.1, 60.0, 16, 0.1),
        Step(2, 10, 6.0, 0.2, 1.0, 1_000, 0.4),
        Step(3, 10, 5.0, 0.3, 3.0, 333, 0.2),
        Validation(3, 0.8),
        Told("memory", {"gpu_memory_bytes": 77 * 2**30}),
    ]
    for sign in signs:
        recorder.take(sign)
    event, first, one, _, three, last, memory = lines = read_metrics(tmp_path / "metrics.jsonl")
    assert event["kind"] == "event"
    assert (first["kind"], first["bpb"], first["bpb_by_decile"], first["tokens"]) == ("eval", 0.9, deciles, 0)
    assert (one["step"], one["tokens"], one["loss"], one["lr_scale"]) == (1, 1_000, 7.0, 0.1)
    assert "step_seconds" not in one, "the first step compiles"
    assert three["step_seconds"] == 3.0 and three["mfu"] == 0.2
    assert last["bpb"] == 0.8 and "bpb_by_decile" not in last
    assert (memory["step"], memory["gpu_memory_bytes"]) == (3, 77 * 2**30)
    assert speed(lines) == {
        "tokens_per_second": pytest.approx(1_999 / 4),
        "mfu": pytest.approx(0.25),
        "peak_memory_bytes": 77 * 2**30,
    }
