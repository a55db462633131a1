"""The products of a layer and their backward, for the fused path: in bf16 here, in fp8 in `fp8.py`.

Each product's weight gradient is added to the storage's fp32 gradient inside the product itself.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from tasks.trainer.kernels.relu2 import product_relu2, product_relu2_backward
from tasks.trainer.storage import Storage


class Products(Protocol):
    """Forward functions return their result and what their backward needs; backward ones return the input's gradient."""

    name: str

    def refresh(self) -> None:
        """Make low-precision copies of the weights: once per optimizer step."""

    def qkv(self, layer: int, x: Tensor) -> tuple[Tensor, object]: ...
    def qkv_backward(self, layer: int, d_out: Tensor, saved: object) -> Tensor: ...
    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, object]: ...
    def proj_backward(self, layer: int, d_out: Tensor, saved: object) -> Tensor: ...
    def mlp(self, layer: int, x: Tensor, residual: Tensor, keep: bool) -> tuple[Tensor, object]: ...
    def mlp_backward(self, layer: int, d_out: Tensor, saved: object) -> Tensor: ...
    def start_head(self, x: Tensor) -> None: ...
    def logits(self, x: Tensor, rows: slice | None) -> Tensor: ...
    def logits_backward(self, d_logits: Tensor, x: Tensor, rows: slice, d_x: Tensor) -> None: ...
    def plain(self, saved: object) -> Tensor:
        """The layer's normed input, from what `qkv` saved."""

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
    """sums (N, K) fp32 += left^T right, for left (M, N) and right (M, K) bf16, summed in fp32 throughout."""
    if left.is_cuda:
        torch.addmm(sums, left.T, right, out_dtype=torch.float32, out=sums)
    else:
        sums += left.T.float() @ right.float()


class Bf16Products:
    """cuBLAS products in bf16 with fp32 sums; squared ReLU rides on the MLP's first product."""

    name = "bf16"

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.layers = max(int(name.split(".")[2]) for stack in storage.stacks for name in stack.names) + 1
        big = [stack.data.shape[-1] >= 128 for stack in storage.stacks]
        self.low = [
            torch.empty_like(stack.data, dtype=torch.bfloat16) if wanted else stack.data
            for stack, wanted in zip(storage.stacks, big, strict=True)
        ]
        self.weights = layer_views(storage, self.low, self.layers)
        self.grads = layer_views(storage, [stack.grad for stack in storage.stacks], self.layers)
        head = storage.others["lm_head.weight"]
        self.head, self.head_grad = torch.empty_like(head, dtype=torch.bfloat16), storage.grads[head]

    def refresh(self) -> None:
        for stack, low in zip(self.storage.stacks, self.low, strict=True):
            if low is not stack.data:
                low.copy_(stack.data)
        self.head.copy_(self.storage.others["lm_head.weight"].detach())

    def qkv(self, layer: int, x: Tensor) -> tuple[Tensor, Tensor]:
        return x @ self.weights.qkv[layer].T, x

    def qkv_backward(self, layer: int, d_out: Tensor, saved: Tensor) -> Tensor:
        add_product(self.grads.qkv[layer], d_out, saved)
        return d_out @ self.weights.qkv[layer]

    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        return residual.addmm_(y, self.weights.proj[layer].T), y

    def proj_backward(self, layer: int, d_out: Tensor, saved: Tensor) -> Tensor:
        add_product(self.grads.proj[layer], d_out, saved)
        return d_out @ self.weights.proj[layer]

    def mlp(self, layer: int, x: Tensor, residual: Tensor, keep: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h = product_relu2(x, self.weights.fc[layer])
        return torch.addmm(residual, h, self.weights.mlp[layer].T), (x, h)

    def mlp_backward(self, layer: int, d_out: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:
        x, h = saved
        add_product(self.grads.mlp[layer], d_out, h)
        d_z = product_relu2_backward(d_out, self.weights.mlp[layer], h)
        add_product(self.grads.fc[layer], d_z, x)
        return d_z @ self.weights.fc[layer]

    def start_head(self, x: Tensor) -> None:
        """Nothing to prepare."""

    def logits(self, x: Tensor, rows: slice | None) -> Tensor:
        return x @ self.head.T

    def logits_backward(self, d_logits: Tensor, x: Tensor, rows: slice, d_x: Tensor) -> None:
        add_product(self.head_grad, d_logits, x)
        torch.mm(d_logits, self.head, out=d_x)

    def plain(self, saved: Tensor) -> Tensor:
        return saved

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing kept."""
