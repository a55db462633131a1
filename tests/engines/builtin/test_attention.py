"""Attention against a sum over positions, and the choice of a backend."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from tasks.engines.builtin import attention
from tasks.errors import InputError

GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="cuDNN needs a GPU")


@pytest.mark.parametrize("window", [1, 3, 7, 8, 100])
def test_each_position_sees_itself_and_the_window_before_it(window):
    generator = torch.Generator().manual_seed(1)
    q = torch.randn(2, 8, 4, 16, generator=generator)
    k, v = (torch.randn(2, 8, 2, 16, generator=generator) for _ in range(2))
    got = attention.attend(q, k, v, window)
    for t in range(8):
        seen = slice(max(0, t - window), t + 1)
        for head in range(4):
            scores = (k[:, seen, head // 2] * q[:, t, None, head]).sum(-1) / 4
            wanted = (scores.softmax(-1)[..., None] * v[:, seen, head // 2]).sum(1)
            assert torch.allclose(got[:, t, head], wanted, atol=1e-5)


def test_a_backend_that_is_missing_or_wrong_is_passed_over(monkeypatch):
    def missing():
        raise ImportError("not there")

    def doubled():
        raise AssertionError("Found 2 libcudnn.so.x")  # as cuDNN's frontend says when it is imported

    def blind():
        return lambda q, k, v, window: attention.attend(q, k, v, 1)

    def right():
        return attention.attend

    candidates = [("absent", missing), ("doubled", doubled), ("blind", blind), ("plain", right)]
    monkeypatch.setattr(attention, "_candidates", lambda *asked: iter(candidates))
    chosen, description = attention.choose_backend(frozenset({128, 256}), 256, 32, torch.device("cpu"))
    assert chosen is attention.attend
    assert description == (
        "plain; absent is not available (ImportError); doubled is not available (AssertionError); "
        "blind is wrong at windows [128, 256]"
    )
    monkeypatch.setattr(attention, "_candidates", lambda *asked: iter(candidates[:3]))
    with pytest.raises(RuntimeError, match="no attention backend"):
        attention.choose_backend(frozenset({256}), 256, 32, torch.device("cpu"))


def test_without_cudnns_frontend_the_next_backend_takes_the_windows_and_the_description_says_so(monkeypatch):
    monkeypatch.setitem(sys.modules, "cudnn", None)
    monkeypatch.delitem(sys.modules, "tasks.engines.builtin.cudnn_attention", raising=False)
    names = [name for name, _ in attention._candidates(False, True, "auto")]
    assert names.index("cuDNN (full) and its frontend (windows)") < names.index(
        "cuDNN (full) and FlexAttention (windows)"
    )
    frontends = [candidate for candidate in attention._candidates(False, True, "auto") if "frontend" in candidate[0]]
    monkeypatch.setattr(attention, "_candidates", lambda *asked: iter([*frontends, ("plain", attention._pytorch)]))
    _, description = attention.choose_backend(frozenset({64}), 192, 32, torch.device("cpu"))
    assert description == "plain; cuDNN (full) and its frontend (windows) is not available (ModuleNotFoundError)"


def test_the_backend_of_full_attention_is_cudnn_alone():
    assert [name for name, _ in attention._candidates(False, False, "auto")] == ["cuDNN", "PyTorch"]


def chosen(monkeypatch, asked, deterministic=False, **modules):
    """Choose among the candidates that a CPU can have, with modules of Flash Attention that are there (a function) or not."""
    for name in ("flash_attn_interface", "flash_attn.cute"):
        there = modules.get(name.split(".")[0])
        monkeypatch.setitem(sys.modules, name, there and SimpleNamespace(flash_attn_func=there))
    real = attention._candidates
    plain = ("plain", attention._pytorch)
    monkeypatch.setattr(
        attention,
        "_candidates",
        lambda *given: iter(
            [c for c in real(*given) if c[0].startswith("Flash")] + [plain] * (given[2] in ("auto", "cudnn"))
        ),
    )
    attention.choose_backend.cache_clear()
    return attention.choose_backend(frozenset({100, 256}), 256, 32, torch.device("cpu"), deterministic, asked)[1]


def flash(q, k, v, causal, window_size, deterministic=False):
    """Flash Attention's function, in plain PyTorch: the result, and what else it returns."""
    left = window_size[0]
    return attention.attend(q, k, v, q.size(1) if left is None else left), None


def test_flash_attention_is_taken_where_it_is_asked_for_or_was_fastest_on_the_host(monkeypatch):
    assert chosen(monkeypatch, "fa3", flash_attn_interface=flash) == "Flash Attention 3"
    assert chosen(monkeypatch, "fa4", flash_attn=flash) == "Flash Attention 4"
    assert chosen(monkeypatch, "auto", flash_attn=flash) == "plain"
    monkeypatch.setenv("FABRATING_ATTENTION", "fa4")
    assert chosen(monkeypatch, "auto", flash_attn=flash) == "Flash Attention 4"
    assert chosen(monkeypatch, "cudnn", flash_attn=flash) == "plain"
    for other in ("fa5", "", "cudnn", "auto", "FA4; rm"):
        monkeypatch.setenv("FABRATING_ATTENTION", other)
        assert chosen(monkeypatch, "auto", flash_attn=flash) == "plain"


def test_deterministic_flash_attention_is_asked_for_by_name_alone(monkeypatch):
    monkeypatch.setenv("FABRATING_ATTENTION", "fa4")
    assert not any("Flash" in name for name, _ in attention._candidates(True, True, "auto"))
    asked: list[bool] = []
    function = lambda *tensors, deterministic=False, **how: asked.append(deterministic) or flash(*tensors, **how)  # noqa: E731
    assert chosen(monkeypatch, "fa3", True, flash_attn_interface=function) == "Flash Attention 3 (deterministic)"
    assert chosen(monkeypatch, "fa4", True, flash_attn=function) == "Flash Attention 4 (deterministic)"
    assert len(asked) == 4 and all(asked)


def test_flash_attention_that_is_missing_or_wrong_is_refused_where_it_was_asked_for(monkeypatch):
    with pytest.raises(
        InputError, match=r"attention is fa3, but here Flash Attention 3 is not available .*attention=auto"
    ):
        chosen(monkeypatch, "fa3")
    wrong = lambda q, k, v, **how: attention.attend(q, k, v, 1)  # noqa: E731
    with pytest.raises(
        InputError, match=r"attention is fa4, but here Flash Attention 4 is wrong at windows \[100, 256\]"
    ):
        chosen(monkeypatch, "fa4", flash_attn=wrong)
    monkeypatch.setenv("FABRATING_ATTENTION", "fa3")
    assert chosen(monkeypatch, "auto") == "plain; Flash Attention 3 is not available (ModuleNotFoundError)"


def test_gradients_are_autograds():
    torch.manual_seed(1)
    d_y, *parts = (torch.randn(2, 8, 3, 4) for _ in range(4))
    inputs = tuple(part.requires_grad_() for part in parts)
    found = attention.attend_backward(attention.attend(*inputs, 4), inputs, d_y)
    assert all(map(torch.equal, found, torch.autograd.grad(attention.attend(*inputs, 4), inputs, d_y)))


def test_attention_without_windows_imports_neither_sympy_nor_pytorchs_compiler():
    program = """
import sys, torch
from tasks.engines.builtin import attention
attention._cudnn_and_flex()
q = torch.ones(1, 2, 1, 2, requires_grad=True)
attention.attend_backward(attention.attend(q, q, q, 2), (q,), torch.ones(1, 2, 1, 2))
assert not {"sympy", "torch._dynamo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)


@GPU
@pytest.mark.parametrize("window", [128, 512])
@pytest.mark.parametrize("asked", ["fa3", "fa4"])
def test_flash_attention_computes_what_cudnn_computes(asked, window):
    name, make = attention.FLASH[asked]
    try:
        function = make(False)
    except ImportError:
        pytest.skip(f"{name} is not installed")
    assert attention._agrees(function, 512, window, 2, 128, torch.device("cuda", 0))
    q, k, v = (torch.randn(2, 512, 3, 128, device="cuda").bfloat16() for _ in range(3))
    cudnn = attention._cudnn_and_frontend()(q, k, v, window).float()
    assert (function(q, k, v, window).float() - cudnn).norm() < 0.01 * cudnn.norm()


@GPU
@pytest.mark.parametrize("window", [1, 128, 200, 512])
@pytest.mark.parametrize("deterministic", [False, True])
def test_cudnns_frontend_sees_the_same_positions(window, deterministic):
    frontend = pytest.importorskip("tasks.engines.builtin.cudnn_attention", exc_type=ImportError)
    generator = torch.Generator("cuda").manual_seed(1)
    packed = torch.randn(2, 512, 3, 4, 128, generator=generator, device="cuda").bfloat16()
    d_out = torch.randn(2, 512, 4, 128, generator=generator, device="cuda").bfloat16()
    found = []
    for run, dtype in ((frontend.attend, torch.bfloat16), (attention.attend, torch.float32)):
        inputs = [part.to(dtype).requires_grad_() for part in packed.unbind(2)]
        y = run(*inputs, window, deterministic) if run is frontend.attend else run(*inputs, window)
        found.append((y.detach(), *torch.autograd.grad(y, inputs, d_out.to(dtype))))
    for got, wanted in zip(*found, strict=True):
        assert (got.float() - wanted).norm() < 0.01 * wanted.norm()


@GPU
def test_cudnns_frontend_gives_the_same_bits_where_asked():
    frontend = pytest.importorskip("tasks.engines.builtin.cudnn_attention", exc_type=ImportError)
    q, k, v, d_out = (
        torch.randn(8, 2048, 2, 128, generator=torch.Generator("cuda").manual_seed(i), device="cuda").bfloat16()
        for i in range(4)
    )
    inputs = [part.requires_grad_() for part in (q, k, v)]
    first, *others = [torch.autograd.grad(frontend.attend(*inputs, 512, True), inputs, d_out) for _ in range(6)]
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))
