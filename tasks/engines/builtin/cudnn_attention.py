"""Attention by cuDNN through its own frontend, which has what PyTorch's call lacks: a window, and a backward of one order.

Needs the package `nvidia-cudnn-frontend` (an import error says that it is not there); cuDNN itself comes with PyTorch. A plan is built
once for each shape, in fractions of a second and without a compiler.
"""

import functools
from typing import Any, NamedTuple

import cudnn
import torch
from torch import Tensor

Q, K, V, OUT, STATS, D_OUT, D_Q, D_K, D_V = range(1, 10)
"""Names of the tensors of a plan."""


class Layout(NamedTuple):
    """What a plan depends on: sizes, strides of (B, H, T, D), window, dtype and device."""

    shape: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    window: int | None
    dtype: torch.dtype
    device: torch.device


class Plan(NamedTuple):
    graph: Any
    workspace: int
    """Bytes."""

    def run(self, device: torch.device, pointers: dict[int, int]) -> None:
        """Queue it on the current stream."""
        handle = _handle(device)
        cudnn.set_stream(handle=handle, stream=torch.cuda.current_stream(device).cuda_stream)
        workspace = torch.empty(max(1, self.workspace), dtype=torch.uint8, device=device)
        self.graph.execute(pointers, workspace, handle=handle)


@functools.cache
def _handle(device: torch.device) -> int:
    with torch.cuda.device(device):
        return cudnn.create_handle()


def _graph(layout: Layout) -> Any:
    kind = cudnn.data_type.BFLOAT16 if layout.dtype == torch.bfloat16 else cudnn.data_type.HALF
    return cudnn.pygraph(
        io_data_type=kind,
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
        handle=_handle(layout.device),
    )


def _options(layout: Layout) -> dict[str, Any]:
    bounds = {"diagonal_band_right_bound": 0}
    if layout.window is not None:
        bounds["diagonal_band_left_bound"] = layout.window + 1  # cuDNN counts the query itself
    return {
        "attn_scale": layout.shape[-1] ** -0.5,
        "diagonal_alignment": cudnn.diagonal_alignment.TOP_LEFT,
        **bounds,
    }


def _built(graph: Any) -> Plan:
    try:
        graph.validate()
        graph.build_operation_graph()
        graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        graph.check_support()
        graph.build_plans()
    except cudnn.cudnnGraphNotSupportedError as error:
        raise RuntimeError(f"cuDNN has no kernel for this attention: {error}") from error
    return Plan(graph, graph.get_workspace_size())


def _stats_layout(shape: tuple[int, ...]) -> tuple[list[int], list[int]]:
    batch, heads, length, _ = shape
    return [batch, heads, length, 1], [heads * length, length, 1, 1]


@functools.lru_cache(maxsize=64)
def _forward_plan(layout: Layout) -> Plan:
    """Of layouts of q, k, v and the output."""
    graph = _graph(layout)
    q, k, v = (
        graph.tensor(dim=list(layout.shape), stride=list(strides), uid=uid, name=name)
        for strides, uid, name in zip(layout.strides, (Q, K, V), "qkv", strict=False)
    )
    out, stats = graph.sdpa(q=q, k=k, v=v, generate_stats=True, name="sdpa", **_options(layout))
    out.set_output(True).set_dim(list(layout.shape)).set_stride(list(layout.strides[3])).set_uid(OUT)
    sizes, strides = _stats_layout(layout.shape)
    stats.set_output(True).set_dim(sizes).set_stride(strides).set_uid(STATS).set_data_type(cudnn.data_type.FLOAT)
    return _built(graph)


@functools.lru_cache(maxsize=64)
def _backward_plan(layout: Layout, deterministic: bool) -> Plan:
    """Of layouts of q, k, v, the output, its gradient and the gradients of q, k and v."""
    graph = _graph(layout)
    names = (("q", Q), ("k", K), ("v", V), ("out", OUT), ("d_out", D_OUT))
    q, k, v, out, d_out = (
        graph.tensor(dim=list(layout.shape), stride=list(strides), uid=uid, name=name)
        for strides, (name, uid) in zip(layout.strides, names, strict=False)
    )
    sizes, strides = _stats_layout(layout.shape)
    stats = graph.tensor(dim=sizes, stride=strides, data_type=cudnn.data_type.FLOAT, uid=STATS, name="stats")
    found = graph.sdpa_backward(
        q=q, k=k, v=v, o=out, dO=d_out, stats=stats, use_deterministic_algorithm=deterministic, name="sdpa_backward",
        **_options(layout),
    )  # fmt: skip
    for gradient, uid in zip(found, (D_Q, D_K, D_V), strict=True):
        gradient.set_output(True).set_dim(list(layout.shape)).set_stride(list(layout.strides[5])).set_uid(uid)
    return _built(graph)


def _layout(window: int, *tensors: Tensor) -> Layout:
    """Of tensors (B, T, H, D), as cuDNN numbers the dimensions: (B, H, T, D)."""
    first = tensors[0]
    batch, length, heads, width = first.shape
    strides = tuple((t.stride(0), t.stride(2), t.stride(1), t.stride(3)) for t in tensors)
    return Layout(
        (batch, heads, length, width), strides, None if window >= length else window, first.dtype, first.device
    )


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, window: int, deterministic: bool) -> Tensor:
        batch, length, heads, _ = q.shape
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        stats = torch.empty(batch, heads, length, 1, dtype=torch.float32, device=q.device)
        pointers = {Q: q, K: k, V: v, OUT: out, STATS: stats}
        _forward_plan(_layout(window, q, k, v, out)).run(q.device, {uid: t.data_ptr() for uid, t in pointers.items()})
        ctx.save_for_backward(q, k, v, out, stats)
        ctx.window, ctx.deterministic = window, deterministic
        return out

    @staticmethod
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, stats = ctx.saved_tensors
        d_out = d_out.contiguous()
        d_q, d_k, d_v = torch.empty(3, *q.shape, dtype=q.dtype, device=q.device).unbind(0)
        pointers = {Q: q, K: k, V: v, OUT: out, STATS: stats, D_OUT: d_out, D_Q: d_q, D_K: d_k, D_V: d_v}
        plan = _backward_plan(_layout(ctx.window, q, k, v, out, d_out, d_q), ctx.deterministic)
        plan.run(q.device, {uid: t.data_ptr() for uid, t in pointers.items()})
        return d_q, d_k, d_v, None, None


def attend(q: Tensor, k: Tensor, v: Tensor, window: int, deterministic: bool = False) -> Tensor:
    """As `attention.attend`, for as many key as query heads. `deterministic`: gradients are summed in one order.

    Raises RuntimeError where cuDNN has no kernel for it.
    """
    return _Attention.apply(q, k, v, window, deterministic)
