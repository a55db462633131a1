"""Kernels compiled ahead by helpers: all that a step and an evaluation need, and none twice."""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from tasks.engines.builtin.compute import build_compute, compile_ahead
from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.optimizer import build_optimizer
from tasks.engines.builtin.schedule import schedule
from tasks.errors import InputError
from tasks.progress import never
from tasks.records.scaling import ModelShape, plan_training
from tasks.store.locks import hold
from tests.waiting import within

pytest.importorskip("triton", reason="PyTorch for CPUs comes without Triton")
from triton import knobs

from tasks.engines.builtin import ahead
from tasks.engines.builtin.kernels.chip import Chip
from tasks.engines.builtin.rehearsal import rehearse

ALONE = World(0, 1, torch.device("meta"))
GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="the kernels need a GPU")


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for compiled kernels."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    return tmp_path


@GPU
@pytest.mark.parametrize("precision", ["bf16", "fp8"])
@pytest.mark.parametrize(("depth", "length"), [(4, 512), (6, 2048)])
def test_a_step_and_an_evaluation_compile_nothing_more(kept, precision, depth, length):
    from triton.runtime import JITFunction

    kernels = [module for name, module in sys.modules.items() if name.startswith("tasks.engines.builtin.kernels")]
    for function in (value for module in kernels for value in vars(module).values() if isinstance(value, JITFunction)):
        function.device_caches.clear()  # what other tests compiled in this process
    config = ModelShape.of_depth(depth, length, "L", 1000)
    plan = plan_training(config, tokens=100 * 2 * length, batch_tokens=2 * length)
    found: list[bool] = []
    knobs.compilation.listener = lambda *, cache_hit, **_: found.append(cache_hit)
    try:
        with compile_ahead(config, precision, True, World(0, 1, torch.device("cuda", 0))):
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
    assert len(list(kept.glob("ahead-*"))) == 1


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
        assert all([ahead._wait_for(helper) for helper in helpers])
    assert sorted("".join(place.read_text() for place in places)) == list("abcdefgh")


def forked(work) -> int:
    """`ahead._fork`, whose child must not come back: here it would go on with the tests."""
    parent = os.getpid()
    try:
        return ahead._fork(work)
    finally:
        if os.getpid() != parent:
            os._exit(0)


def fail() -> bool:
    raise RuntimeError("no compiler")


def hang() -> bool:
    time.sleep(100)  # nothing is left for ever should a test fail
    return True


def test_a_helper_that_fails_or_hangs_is_ended_and_said(capfd):
    assert not ahead._wait_for(forked(fail))
    assert "kernels are not compiled ahead: RuntimeError: no compiler" in capfd.readouterr().err
    assert not ahead._wait_for(forked(hang), 0.0)
    assert not ahead._wait_for(forked(lambda: False))


def test_a_helper_that_cannot_even_say_why_it_fails_ends_all_the_same(monkeypatch):
    with Path("/dev/full").open("w") as full:  # as a log on a full disk
        monkeypatch.setattr(sys, "stderr", full)
        assert not ahead._wait_for(forked(fail))


def test_of_helpers_that_fail_at_the_same_one_says_so(kept, monkeypatch, capfd):
    monkeypatch.setenv("FABRATING_WORKERS", "5")
    monkeypatch.setattr(ahead, "_hash_compiler", lambda chip: None)
    monkeypatch.setattr(ahead._Claims, "mine", lambda claims, what: False)
    assert not ahead._wait_for(forked(lambda: ahead._lead(fail, Chip((9, 0), 132))))
    assert capfd.readouterr().err == "kernels are not compiled ahead: RuntimeError: no compiler\n"


@pytest.fixture
def around(kept, monkeypatch):
    """`compiling` for a chip that need not be there, with two cores, and whatever the leader of the helpers shall do."""
    monkeypatch.setenv("FABRATING_WORKERS", "2")
    monkeypatch.setattr(ahead, "chip_of", lambda device: Chip((9, 0), 132))
    monkeypatch.setattr(ahead, "_hash_compiler", lambda chip: None)

    def around(lead, stop=never, world=ALONE, depth=4):
        monkeypatch.setattr(ahead, "_lead", lambda rehearse, chip: lead())
        return ahead.compiling(ModelShape.of_depth(depth, 256, "L", 300), "bf16", world, lambda: None, stop)

    return around


def test_helpers_end_with_the_block_that_they_work_for(around, tmp_path, monkeypatch, caplog):
    lock, beginning = tmp_path / "lock", time.monotonic()
    with pytest.raises(InputError), hold(lock, "The run", "r"), around(hang):
        raise InputError("the batch does not divide")
    with hold(lock, "The run", "r", patience=0.0), around(hang, stop=lambda: True):
        """They hold no lock of a run that failed before its first step, and a stop does not wait for them."""
    assert not list(tmp_path.glob("ahead-*"))
    monkeypatch.setattr(ahead, "PATIENCE", 0.0)
    with caplog.at_level("INFO"), around(hang):
        """Nor does a start wait for them for ever."""
    assert "the first step takes longer" in caplog.text
    assert time.monotonic() - beginning < 30


def test_helpers_of_a_killed_trainer_die_with_it(around, tmp_path):
    said = tmp_path / "said"

    def lead() -> bool:
        said.write_text(f"{os.getpid()} {ahead._fork(hang)}\n")
        return hang()

    def trainer() -> bool:
        with around(lead):
            return hang()

    def lives(pid: str) -> bool:
        with contextlib.suppress(psutil.NoSuchProcess):
            return psutil.Process(int(pid)).status() != psutil.STATUS_ZOMBIE
        return False

    process = forked(trainer)
    assert within(20, lambda: said.exists() and said.read_text().endswith("\n"))
    helpers = said.read_text().split()
    assert all(map(lives, helpers))
    os.kill(process, signal.SIGKILL)
    assert not ahead._wait_for(process)
    assert within(20, lambda: not any(map(lives, helpers)))


def test_helpers_that_hang_do_so_at_one_start_only(around, tmp_path):
    with around(lambda: False):
        pass
    begun = tmp_path / "begun"
    for depth in (4, 5):
        with around(lambda: begun.touch() is None, depth=depth):
            pass
        assert begun.exists() == (depth == 5)


def test_only_the_first_rank_has_helpers_and_all_wait_for_them(around, monkeypatch, tmp_path):
    waited: list[int] = []
    monkeypatch.setattr(World, "barrier", lambda world: waited.append(world.rank))
    for rank in (1, 0):
        with around(lambda: True, world=World(rank, 2, ALONE.device)):
            assert rank not in waited
        assert rank in waited
        assert len(list(tmp_path.glob("ahead-*"))) == 1 - rank


@pytest.mark.parametrize("lacking", ["process", "cores", "folder"])
def test_a_host_that_cannot_have_helpers_trains_without(around, lacking, monkeypatch, tmp_path):
    def refuse() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    if lacking == "process":
        monkeypatch.setattr(os, "fork", refuse)
    elif lacking == "cores":
        monkeypatch.setenv("FABRATING_WORKERS", "1")
    else:
        (tmp_path / "file").touch()
        monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "file" / "triton"))
    with around(lambda: True):
        pass
    assert not list(tmp_path.glob("**/ahead-*"))


@pytest.mark.slow
@pytest.mark.skipif(
    not os.environ.get("TRITON_LIBCUDA_PATH") and not torch.cuda.is_available(), reason="launchers link libcuda"
)
def test_a_set_is_built_once_and_then_kept(kept, monkeypatch):
    monkeypatch.setenv("FABRATING_WORKERS", "3")
    monkeypatch.setattr(ahead, "chip_of", lambda device: Chip((9, 0), 132))
    monkeypatch.setattr(ahead, "PATIENCE", 300.0)
    fork, forks = ahead._fork, []
    monkeypatch.setattr(ahead, "_fork", lambda work: forks.append(fork(work)) or forks[-1])
    config = ModelShape.of_depth(4, 256, "L", 300)
    for _ in range(2):
        with ahead.compiling(config, "bf16", ALONE, lambda: rehearse(config, "bf16")):
            pass
        assert len(list(kept.rglob("*.cubin"))) > 20 and len(list(kept.glob("ahead-*"))) == 1
    assert len(forks) == 1
    assert not hasattr(torch, "_dynamo") or hasattr(torch._dynamo, "reset")  # the stand-in stays in the helpers
