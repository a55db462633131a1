"""The products of a layer and their backward, for the fused path: in bf16 here, in fp8 in `fp8.py`.

Each product's weight gradient is added to the storage's fp32 gradient inside the product itself.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tasks.trainer.kernels.low import Slot
from tasks.trainer.kernels.relu2 import product_relu2, product_relu2_backward
from tasks.trainer.storage import Storage


class Products(Protocol):
    """Forward functions return their result and what their backward needs; backward ones return the input's gradient."""

    name: str
    low_norms: bool
    """Norms come in fp8; then gradients come in the fp8 of their slots."""

    def slots(self, kind: str, layer: int) -> Slot | None:
        """Where the gradient goes that enters the backward of "qkv", "proj" or "mlp"; None: plain."""

    def refresh(self) -> None:
        """Make low-precision copies of the weights: once per optimizer step."""

    def qkv(self, layer: int, x: Tensor) -> Tensor: ...
    def qkv_backward(self, layer: int, d_out: Tensor, x: Tensor) -> Tensor: ...
    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The new residual stream; the old one may be overwritten."""

    def proj_backward(self, layer: int, d_out: Tensor, y: Tensor) -> Tensor: ...
    def mlp(self, layer: int, x: Tensor, residual: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The new residual stream; the old one may be overwritten unless `low_norms`."""

    def mlp_backward(self, layer: int, d_out: Tensor, saved: tuple[Tensor, ...]) -> Tensor: ...
    def logits(self, x: Tensor) -> Tensor: ...
    def logits_backward(self, d_logits: Tensor, x: Tensor, d_x: Tensor) -> None: ...
    def finish(self) -> None:
        """After the backward of a micro-batch."""

    def state_dict(self) -> dict[str, Tensor]: ...
    def load_state_dict(self, state: dict[str, Tensor]) -> None: ...


@dataclass
class LayerWeights:
    """One kind of matrix for all layers: (L, N, K), or fp32 gradients of the same shape."""

    qkv: Tensor
    proj: Tensor
    fc: Tensor
    mlp: Tensor


def layer_views(storage: Storage, tensors: list[Tensor], layers: int) -> LayerWeights:
    """Views of stacks (one tensor per stack of the storage) by role: the stack of (C, C) holds q, k, v, proj of layer after layer."""
    by_name = {}
    for stack, tensor in zip(storage.stacks, tensors, strict=True):
        for place, name in enumerate(stack.names):
            by_name[name] = (tensor, place)

    def role(name: str) -> Tensor:
        tensor, first = by_name[f"transformer.h.0.{name}.weight"]
        step = tensor.size(0) // layers
        return tensor[first::step]

    square, first = by_name["transformer.h.0.attn.c_q.weight"]
    count, rows, columns = square.shape
    if first != 0 or count != 4 * layers or by_name["transformer.h.0.attn.c_proj.weight"][1] != 3:
        raise AssertionError("queries, keys, values and projection of a layer must be neighbours in their stack")
    packed = square.view(layers, 4 * rows, columns)[:, : 3 * rows]
    return LayerWeights(packed, role("attn.c_proj"), role("mlp.c_fc"), role("mlp.c_proj"))


def add_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """sums (N, K) fp32 += left^T right, for left (M, N) and right (M, K), summed in fp32 throughout."""
    if left.is_cuda:
        torch.addmm(sums, left.T, right, out_dtype=torch.float32, out=sums)
    else:
        sums += left.T.float() @ right.float()


def cut_of(rows: int, columns: int, device: torch.device) -> tuple[int, int]:
    """Into which two lengths to cut the longer side of a weight's gradient (the second 0: leave it whole).

    A weight's gradient has few tiles, each with a sum over all tokens. When a 4 : 1 output has more tiles of 128 x 256 than the GPU
    processors, its last wave is mostly idle; two parts fill theirs better. Measured on an H100 with a sum over 65,536: 0.85 of
    the time at 5120 x 1280 with 4/5, 0.94 at 6656 x 1664 with 3/4, and worse than whole at 3072 x 768, which fits in one wave.
    """
    length, other = max(rows, columns), min(rows, columns)
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1
    waves = rows * columns / (processors * 128 * 256)
    if length != 4 * other or waves <= 1:
        return length, 0
    first = length * 4 // 5 // 128 * 128 if waves <= 2 else length * 3 // 4
    return first, length - first


def add_long_product(sums: Tensor, left: Tensor, right: Tensor) -> None:
    """As `add_product`, in two parts where `cut_of` says so."""
    lengths = cut_of(*sums.shape, sums.device)
    tall = sums.size(0) > sums.size(1)
    start = 0
    for length in lengths:
        part = slice(start, start + length)
        start += length
        if length and tall:
            add_product(sums[part], left[:, part], right)
        elif length:
            add_product(sums[:, part], left, right[:, part])


class Bf16Products:
    """cuBLAS products in the dtype of activations (bf16 on a GPU) with fp32 sums; squared ReLU rides on the MLP's first one."""

    name = "bf16"
    low_norms = False

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.layers = max(int(name.split(".")[2]) for stack in storage.stacks for name in stack.names) + 1
        dtype = storage.others["transformer.wte.weight"].dtype
        big = [stack.data.shape[-1] >= 128 for stack in storage.stacks]
        self.low = [
            torch.empty_like(stack.data, dtype=dtype) if wanted else stack.data
            for stack, wanted in zip(storage.stacks, big, strict=True)
        ]
        self.weights = layer_views(storage, self.low, self.layers)
        self.grads = layer_views(storage, [stack.grad for stack in storage.stacks], self.layers)
        self.mlp_transposed = torch.empty_like(self.weights.fc)
        head = storage.others["lm_head.weight"]
        self.head, self.head_grad = torch.empty_like(head, dtype=dtype), storage.grads[head]

    def refresh(self) -> None:
        for stack, low in zip(self.storage.stacks, self.low, strict=True):
            if low is not stack.data:
                low.copy_(stack.data)
        self.mlp_transposed.copy_(self.weights.mlp.mT)
        self.refresh_head()

    def refresh_head(self) -> None:
        self.head.copy_(self.storage.others["lm_head.weight"].detach())

    def slots(self, kind: str, layer: int) -> None:
        return None

    def qkv(self, layer: int, x: Tensor) -> Tensor:
        return x @ self.weights.qkv[layer].T

    def qkv_backward(self, layer: int, d_out: Tensor, x: Tensor) -> Tensor:
        add_product(self.grads.qkv[layer], d_out, x)
        return d_out @ self.weights.qkv[layer]

    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return residual.addmm_(y, self.weights.proj[layer].T), y

    def proj_backward(self, layer: int, d_out: Tensor, y: Tensor) -> Tensor:
        add_product(self.grads.proj[layer], d_out, y)
        return d_out @ self.weights.proj[layer]

    def mlp(self, layer: int, x: Tensor, residual: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = product_relu2(x, self.weights.fc[layer])
        return residual.addmm_(h, self.weights.mlp[layer].T), (x, h)

    def mlp_backward(self, layer: int, d_out: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:
        x, h = saved
        add_long_product(self.grads.mlp[layer], d_out, h)
        d_z = product_relu2_backward(d_out, self.mlp_transposed[layer], h)
        add_long_product(self.grads.fc[layer], d_z, x)
        return d_z @ self.weights.fc[layer]

    def logits(self, x: Tensor) -> Tensor:
        return x @ self.head.T

    def logits_backward(self, d_logits: Tensor, x: Tensor, d_x: Tensor) -> None:
        add_product(self.head_grad, d_logits, x)
        torch.mm(d_logits, self.head, out=d_x)

    def finish(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
