"""The products of a layer and their backward, for the fused path: in bf16 here, in fp8 in `fp8.py`.

Each product's weight gradient is added to the storage's fp32 gradient inside the product itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.engines.builtin.blas import blas_of
from tasks.engines.builtin.kernels import hopper
from tasks.engines.builtin.kernels.chip import chip_of
from tasks.engines.builtin.kernels.loss import cross_entropy
from tasks.engines.builtin.kernels.relu2 import product_relu2, product_relu2_backward
from tasks.engines.builtin.model import SOFTCAP
from tasks.engines.builtin.storage import Storage

Rotary = tuple[Tensor, Tensor, int, float]
"""cos and sin (T, D/2), the sequences' length, and the scale of normed queries and keys."""


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


class Bf16Products:
    """Products in bf16 with fp32 sums; squared ReLU rides on the MLP's first one, on Hopper rotation and head norms on the others.

    Here and in fp8, forward functions return their result and what their backward needs; backward ones return the input's gradient.
    """

    name = "bf16"
    low_norms = False
    """Whether norms come in fp8; then gradients come in the fp8 of their slots."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        device = storage.stacks[0].data.device
        self.blas = blas_of(device)
        self.hopper = chip_of(device).capability[0] == 9
        self.relu2_backward = hopper.product_relu2_backward if self.hopper else product_relu2_backward
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
        self.head_master, self.head_grad = head.detach(), storage.grads[head]
        self.head = torch.empty_like(self.head_master, dtype=dtype)

    def refresh(self) -> None:
        """Make low-precision copies of the weights: once per optimizer step."""
        for stack, low in zip(self.storage.stacks, self.low, strict=True):
            if low is not stack.data:
                low.copy_(stack.data)
        self.mlp_transposed.copy_(self.weights.mlp.mT)
        self.head.copy_(self.head_master)

    def slots(self, kind: str, layer: int) -> None:
        """Where the gradient goes that enters the backward of "qkv", "proj" or "mlp"; None: plain."""

    def _product(self, left: Tensor, right: Tensor) -> Tensor:
        return self.blas.multiply(left, right, left.new_empty(left.size(0), right.size(1)))

    def _add(self, grad: Tensor, left: Tensor, right: Tensor) -> None:
        """A weight's gradient (N, K) += left^T right, for left (M, N) and right (M, K)."""
        self.blas.add_product(grad, left.T, right)

    def qkv(self, layer: int, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor | None]:
        """q, k, v packed, and where q and k are rotated and normed already what `heads` returns then."""
        if self.hopper:
            return hopper.product_heads(x, self.weights.qkv[layer], *rotary)
        return self._product(x, self.weights.qkv[layer].T), None

    def qkv_backward(self, layer: int, d_out: Tensor, x: Tensor) -> Tensor:
        self._add(self.grads.qkv[layer], d_out, x)
        return self._product(d_out, self.weights.qkv[layer])

    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """The new residual stream; the old one may be overwritten."""
        return self.blas.multiply(y, self.weights.proj[layer].T, residual, base=residual), y

    def proj_backward(self, layer: int, d_out: Tensor, y: Tensor) -> Tensor:
        self._add(self.grads.proj[layer], d_out, y)
        return self._product(d_out, self.weights.proj[layer])

    def mlp(self, layer: int, x: Tensor, residual: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """The new residual stream; the old one may be overwritten unless `low_norms`."""
        h = product_relu2(x, self.weights.fc[layer])
        return self.blas.multiply(h, self.weights.mlp[layer].T, residual, base=residual), (x, h)

    def mlp_backward(self, layer: int, d_out: Tensor, saved: tuple[Tensor, Tensor]) -> Tensor:
        x, h = saved
        self._add(self.grads.mlp[layer], d_out, h)
        d_z = self.relu2_backward(d_out, self.mlp_transposed[layer], h)
        self._add(self.grads.fc[layer], d_z, x)
        return self._product(d_z, self.weights.fc[layer])

    def logits(self, x: Tensor) -> Tensor:
        return self._product(x, self.head.T)

    def losses(self, x: Tensor, targets: Tensor, vocab_size: int, scale: float | None, d_x: Tensor | None) -> Tensor:
        """Nats (R,) of the targets after the normed rows x (R, C). With a scale, scale x the gradient of their sum is added to the output
        matrix's gradient and written to d_x (R, C)."""
        logits = self.logits(x)
        losses = cross_entropy(logits, targets, vocab_size, SOFTCAP, scale)
        if d_x is not None:
            self._add(self.head_grad, logits, x)
            self.blas.multiply(logits, self.head, d_x)
        return losses

    def finish(self) -> None:
        """After the backward of a micro-batch: nothing to do."""

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Nothing was kept."""
