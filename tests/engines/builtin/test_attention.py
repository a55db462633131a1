"""Attention against a sum over positions, and the choice of a backend."""

import subprocess
import sys

import pytest
import torch

from tasks.engines.builtin import attention


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

    def blind():
        return lambda q, k, v, window: attention.attend(q, k, v, 1)

    def right():
        return attention.attend

    candidates = [("absent", missing), ("blind", blind), ("plain", right)]
    monkeypatch.setattr(attention, "_candidates", lambda deterministic: iter(candidates))
    chosen, description = attention.choose_backend(frozenset({128, 256}), 256, 32, torch.device("cpu"))
    assert chosen is attention.attend
    assert description == "plain; absent is not available (ImportError); blind is wrong at windows [128, 256]"
    monkeypatch.setattr(attention, "_candidates", lambda deterministic: iter(candidates[:2]))
    with pytest.raises(RuntimeError, match="no attention backend"):
        attention.choose_backend(frozenset({256}), 256, 32, torch.device("cpu"))


def test_where_no_layer_has_a_window_pytorchs_compiler_is_not_imported():
    code = "import sys; from tasks.engines.builtin import attention; attention._cudnn_and_flex(); print('torch._dynamo' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
