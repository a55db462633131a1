"""Causal attention with an optional sliding window, behind one function: `attend`.

The plain form builds an explicit mask for windows and runs anywhere. On a GPU `choose_backend` takes the first backend of its list
that can be imported and gives the plain form's result and gradients on a small case; none of them builds a mask.
"""

import functools
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from tasks.errors import InputError
from tasks.spec.training import MEASURED

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(q, k, v, window) -> y: (B, T, H, D) each (k and v may have fewer heads), softmax scale 1/sqrt(D)."""

TOLERANCE = 2e-2
"""Relative distance from the plain form that rounding to bf16 explains."""


class NoAttentionError(InputError):
    """The attention that is asked for is not there, or wrong; `reason` says which."""

    def __init__(self, asked: str, reason: str) -> None:
        super().__init__(
            f"attention is {asked}, but here {reason}: install it on the host (gpu-host with attention={asked} and find_links), or take "
            "attention=auto."
        )
        self.reason = reason


def attend(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention of each position to itself and the `window` positions before it.

    q (B, T, H, D), k and v (B, S, H_kv, D) -> (B, T, H, D): the queries are those of the last T of S positions.
    """
    length, seen, grouped = q.size(1), k.size(1), q.size(2) != k.size(2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if window >= seen == length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)
    position = torch.arange(seen, device=q.device)
    distance = position[seen - length :, None] - position[None, :]
    mask = (distance >= 0) & (distance <= window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)


def _flash_attention_3(deterministic: bool) -> Attend:
    function = importlib.import_module("flash_attn_interface").flash_attn_func
    order = {"deterministic": True} if deterministic else {}
    return lambda q, k, v, window: _first(function(q, k, v, causal=True, window_size=(window, 0), **order))


def _flash_attention_4(deterministic: bool) -> Attend:
    function = importlib.import_module("flash_attn.cute").flash_attn_func

    def run(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        sides = (None, None) if window >= q.size(1) else (window, 0)
        return _first(function(q, k, v, causal=True, window_size=sides, deterministic=deterministic))

    return run


FLASH = {"fa3": ("Flash Attention 3", _flash_attention_3), "fa4": ("Flash Attention 4", _flash_attention_4)}
"""By the names of `training.attention`."""


def _first(result: Tensor | tuple[Tensor, ...]) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


@functools.cache
def _compiled_flex() -> Callable[..., Tensor]:
    """Made when first called for: `torch.compile` begins by importing PyTorch's compiler, for six seconds."""
    return torch.compile(_flex, dynamic=False)


def _flex_attention() -> Attend:
    """FlexAttention's compiled kernel. Its backward sums in one order; the others' use atomic additions, in any order."""
    return lambda q, k, v, window: _compiled_flex()(q, k, v, _block_mask(q.size(1), window, q.device))


def _frontend() -> Any:
    return importlib.import_module("tasks.engines.builtin.cudnn_attention")


def _deterministic_cudnn() -> Attend:
    return functools.partial(_frontend().attend, deterministic=True)


def _cudnn_and_frontend() -> Attend:
    return _cudnn_and(_frontend().attend)


def _cudnn_and_flex() -> Attend:
    return _cudnn_and(_flex_attention())


def _cudnn_and(windowed: Attend) -> Attend:
    """cuDNN through PyTorch where a query sees everything before it, something else for windows."""

    def run(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
        if window < q.size(1):
            return windowed(q, k, v, window)
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return attend(q, k, v, window)

    return run


def _flex(q: Tensor, k: Tensor, v: Tensor, block_mask: object) -> Tensor:
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    return flex_attention(q, k, v, block_mask=block_mask).transpose(1, 2)


@functools.lru_cache(maxsize=16)
def _block_mask(length: int, window: int, device: torch.device) -> object:
    """Which 128 x 128 blocks FlexAttention visits: T/128 squared flags, not a mask of the scores."""
    from torch.nn.attention.flex_attention import create_block_mask

    def seen(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (query - key <= window)

    return create_block_mask(seen, None, None, length, length, device=device)


def _pytorch() -> Attend:
    return attend


def _candidates(deterministic: bool, windowed: bool, asked: str) -> Iterator[tuple[str, Callable[[], Attend]]]:
    """Best first: what is `asked` for or was measured on the host, then as measured on an H100."""
    if asked in FLASH:
        name, make = FLASH[asked]
        yield f"{name} (deterministic)" if deterministic else name, functools.partial(make, deterministic)
        return
    measured = os.environ.get(MEASURED)
    if asked == "auto" and measured in FLASH and not deterministic:
        yield FLASH[measured][0], functools.partial(FLASH[measured][1], False)
    if deterministic:
        yield "cuDNN's frontend (deterministic)", _deterministic_cudnn
        yield "FlexAttention (deterministic)", _flex_attention
        return
    if windowed:
        yield "cuDNN (full) and its frontend (windows)", _cudnn_and_frontend
    yield "cuDNN (full) and FlexAttention (windows)" if windowed else "cuDNN", _cudnn_and_flex
    yield "PyTorch", _pytorch


def _agrees(function: Attend, length: int, window: int, heads: int, head_dim: int, device: torch.device) -> bool:
    """Do result and gradients equal the plain form's in fp32, but for rounding?"""
    generator = torch.Generator(device=device).manual_seed(0)
    shape = (1, length, heads, head_dim)
    inputs = [torch.randn(shape, generator=generator, device=device, dtype=torch.bfloat16) for _ in range(4)]
    results = []
    for run, dtype in ((function, torch.bfloat16), (attend, torch.float32)):
        q, k, v = (tensor.to(dtype, copy=True).requires_grad_() for tensor in inputs[:3])
        y = run(q, k, v, window)
        results.append((y.detach(), *attend_backward(y, (q, k, v), inputs[3].to(dtype))))
    pairs = zip(*results, strict=True)
    return all(((got.float() - wanted).norm() <= TOLERANCE * wanted.norm()).item() for got, wanted in pairs)


def attend_backward(y: Tensor, inputs: tuple[Tensor, ...], d_y: Tensor) -> tuple[Tensor, ...]:
    """Gradients of attention's inputs. On the meta device, where a backend computes nothing, tensors of their shapes.

    Calls PyTorch's engine as `torch.autograd.grad` does, less its check of shapes: that imports SymPy, two seconds of a start.
    """
    if y.is_meta:
        return tuple(map(torch.empty_like, inputs))
    found: tuple[Tensor, ...] = torch.autograd.Variable._execution_engine.run_backward(  # type: ignore[attr-defined]
        (y,), (d_y,), False, False, inputs, allow_unreachable=False, accumulate_grad=False
    )
    return found


@functools.cache
def choose_backend(
    windows: frozenset[int],
    length: int,
    head_dim: int,
    device: torch.device,
    deterministic: bool = False,
    asked: str = "auto",
) -> tuple[Attend, str]:
    """The first backend that is there and right for all windows of a model, and its name with those passed over; tried once.

    `asked`: auto, fa3, fa4 or cudnn. Raises NoAttentionError when Flash Attention is asked for that is not there or wrong.
    """
    if device.type == "meta":
        return lambda q, k, v, window: torch.empty_like(q), "none"
    passed = []
    for name, make in _candidates(deterministic, any(window < length for window in windows), asked):
        try:
            function = make()
            with torch.enable_grad():
                wrong = [
                    window for window in sorted(windows) if not _agrees(function, length, window, 1, head_dim, device)
                ]
        except Exception as error:  # compilers of others raise what they like
            passed.append(f"{name} is not available ({type(error).__name__})")
            continue
        if not wrong:
            return function, name if not passed else f"{name}; {'; '.join(passed)}"
        passed.append(f"{name} is wrong at windows {wrong}")
    if asked in FLASH:
        raise NoAttentionError(asked, "; ".join(passed))
    raise RuntimeError(f"no attention backend gives the right result: {'; '.join(passed)}")
