"""Kernels compiled ahead by helpers: all that a step and an evaluation need, and none twice."""

import os
import sys
from pathlib import Path

import pytest
import torch

from tasks.engines.builtin.compute import build_compute, compile_ahead
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.records.scaling import ModelShape, plan_training

pytest.importorskip("triton", reason="PyTorch for CPUs comes without Triton")
from triton import knobs

from tasks.engines.builtin import ahead
from tasks.engines.builtin.kernels.chip import Chip
from tasks.engines.builtin.rehearsal import rehearse

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for compiled kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path


@GPU
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("depth", "length"), [(4, 512), (6, 2048)])
def test_a_step_and_an_evaluation_compile_nothing_more(kept, precision, depth, length, monkeypatch):
    from triton.runtime import JITFunction

    monkeypatch.setattr(ahead, "_begun", set())
    kernels = [module for name, module in sys.modules.items() if name.startswith("tasks.engines.builtin.kernels")]
    for function in (value for module in kernels for value in vars(module).values() if isinstance(value, JITFunction)):
        function.device_caches.clear()  # what other tests compiled in this process
    config = ModelShape.of_depth(depth, length, "L", 1000)
    plan = plan_training(config, tokens=100 * 2 * length, batch_tokens=2 * length)
    found: list[bool] = []
    knobs.compilation.listener = lambda *, cache_hit, **_: found.append(cache_hit)
    try:
        compile_ahead(config, precision, True, torch.device("cuda", 0))
        model = GPT(config, torch.bfloat16)
        model.init_weights(1)
        compute = build_compute(model.cuda(), precision)
        optimizer = build_optimizer(model, plan)
        tokens = torch.randint(0, 1000, (2, length + 1), device="cuda")
        for step in range(2):
            optimizer.zero_grad()
            compute.backward(tokens[:, :-1], tokens[:, 1:], 1.0)
            optimizer.step(*schedule(step, plan))
        compute.losses(tokens[:, :-1], tokens[:, 1:])
    finally:
        knobs.compilation.listener = None
    assert len(found) > 20 and all(found)
    assert len(list(kept.glob("complete-*"))) == 1


def test_helpers_share_out_what_they_meet(kept, tmp_path):
    places = [tmp_path / str(number) for number in range(3)]
    with (tmp_path / "claims").open("wb") as file:

        def claim(place: Path) -> bool:
            claims = ahead._Claims(file)
            mine = [name for name in "abcdefgh" if claims.mine(name)]
            place.write_text("".join(mine))
            while not all(other.exists() for other in places):
                os.sched_yield()
            return True

        helpers = [ahead._fork(lambda place=place: claim(place)) for place in places]
        assert all([ahead._wait_for(helper, float("inf")) for helper in helpers])
    assert sorted("".join(place.read_text() for place in places)) == list("abcdefgh")


def test_a_helper_that_fails_or_hangs_is_ended_and_said(kept, capfd):
    def fail() -> bool:
        raise RuntimeError("no compiler")

    assert not ahead._wait_for(ahead._fork(fail), float("inf"))
    assert "kernels are not compiled ahead: RuntimeError: no compiler" in capfd.readouterr().err
    assert not ahead._wait_for(ahead._fork(lambda: bool(os.read(os.pipe()[0], 1))), 0.0)
    assert not ahead._wait_for(ahead._fork(lambda: False), float("inf"))


@pytest.mark.skipif(
    not os.environ.get("TRITON_LIBCUDA_PATH") and not torch.cuda.is_available(), reason="launchers link libcuda"
)
def test_a_set_is_built_once_and_then_kept(kept, monkeypatch):
    monkeypatch.setenv("FABRATING_WORKERS", "3")
    monkeypatch.setattr(ahead, "chip_of", lambda device: Chip((9, 0), 132))
    monkeypatch.setattr(ahead, "_awaited", [])
    config = ModelShape.of_depth(4, 256, "L", 300)
    for built in (True, False):
        monkeypatch.setattr(ahead, "_begun", set())
        for _ in range(2):
            ahead.begin(config, "bf16", torch.device("meta"), lambda: rehearse(config, "bf16"))
        assert [process > 0 for _, process in ahead._awaited] == [built]
        ahead.wait()
        assert len(list(kept.rglob("*.cubin"))) > 20 and len(list(kept.glob("complete-*"))) == 1
