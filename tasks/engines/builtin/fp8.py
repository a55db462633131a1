"""Products in fp8 with one scale per tensor (Hopper and later): all of a layer's and the output matrix's, forward and backward.

Tensor cores read both operands of an fp8 product along the summed dimension, so what enters a weight gradient is also kept or made
transposed. Weights are cast, both ways round, once per optimizer step. `kernels/low.py` explains the scales.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from tasks.engines.builtin.kernels import hopper
from tasks.engines.builtin.kernels.loss import LOW_SCALE, cross_entropy
from tasks.engines.builtin.kernels.low import E4M3, E5M2, NORM_LIMIT, Slot, quantize, transpose
from tasks.engines.builtin.kernels.relu2 import product_relu2_backward_low, product_relu2_low
from tasks.engines.builtin.model import SOFTCAP
from tasks.engines.builtin.products import Bf16Products, Rotary, layer_views
from tasks.errors import InputError

ACTIVATIONS = {"y": 16.0, "h": 8.0}
"""Attention's output and the MLP's squared ReLU, with the scales to begin with."""
GRADIENTS = ("qkv", "proj", "mlp", "z")
"""What enters the backward of each product; z: the MLP before its ReLU."""
MARGIN = {E4M3: 2.0, E5M2: 8.0}
"""How much a tensor may grow from one micro-batch to the next before it is cut off. It costs range, of which there is plenty."""
REHEARSALS = 2
ALIGN = 4
"""Scales lie 16 bytes apart, so that kernels are compiled for one alignment only."""


class LowWeight:
    """One kind of matrix of all layers in e4m3, as it is and transposed."""

    def __init__(self, masters: Tensor) -> None:
        self.masters = masters
        layers, rows, columns = masters.shape
        self.plain = torch.empty(layers, rows, columns, dtype=E4M3, device=masters.device)
        self.turned = torch.empty(layers, columns, rows, dtype=E4M3, device=masters.device)
        self.scales = torch.ones(layers, ALIGN, device=masters.device)
        self.inverses = torch.ones_like(self.scales)
        self.unused = torch.zeros(ALIGN, device=masters.device)

    def refresh(self) -> None:
        largest = torch.linalg.vector_norm(self.masters, float("inf"), dim=(1, 2)).clamp_min(1e-12)
        self.scales.copy_((NORM_LIMIT / largest)[:, None])
        self.inverses.copy_((largest / NORM_LIMIT)[:, None])
        for layer, master in enumerate(self.masters):
            slot = Slot(self.scales[layer, 0], self.inverses[layer, 0], self.unused[0], E4M3)
            quantize(master, slot, self.plain[layer])
            transpose(self.plain[layer], self.turned[layer])


class Fp8Products:
    """The trained part in fp8; `bf16` is where the gradients' views come from."""

    name = "fp8"
    low_norms = True

    def __init__(self, bf16: Bf16Products) -> None:
        self.bf16, self.grads = bf16, bf16.grads
        self.relu2_backward = hopper.product_relu2_backward_low if bf16.hopper else product_relu2_backward_low
        masters = layer_views(bf16.storage, [stack.data for stack in bf16.storage.stacks], bf16.layers)
        self.weights = {role: LowWeight(getattr(masters, role)) for role in ("qkv", "proj", "fc", "mlp")}
        self.weights["head"] = LowWeight(bf16.head_master[None])
        device = masters.qkv.device
        self.kinds = (*ACTIVATIONS, *GRADIENTS)
        dtypes = [E4M3] * len(ACTIVATIONS) + [E5M2] * len(GRADIENTS)
        shape = (len(self.kinds), bf16.layers, ALIGN)
        self.scales, self.amax = torch.ones(shape, device=device), torch.zeros(shape, device=device)
        self.inverses = torch.ones(shape, device=device)
        self.targets = torch.tensor([torch.finfo(dtype).max / MARGIN[dtype] for dtype in dtypes], device=device)
        self.table = {
            (kind, layer): Slot(self.scales[k, layer, 0], self.inverses[k, layer, 0], self.amax[k, layer, 0], dtypes[k])
            for k, kind in enumerate(self.kinds)
            for layer in range(bf16.layers)
        }
        width = masters.qkv.size(-1)
        self.norm_inverse = torch.full((), width**0.5 / NORM_LIMIT, device=device)
        self.rehearsals = REHEARSALS

    def slots(self, kind: str, layer: int) -> Slot:
        return self.table[kind, layer]

    def refresh(self) -> None:
        for weight in self.weights.values():
            weight.refresh()

    def guess(self, unit: float) -> None:
        """Scales to begin with, when the gradient of one logit is at most `unit`; rehearsals make them exact."""
        firsts = [*ACTIVATIONS.values()] + [1 / unit] * len(GRADIENTS)
        self._set(torch.tensor(firsts, device=self.scales.device)[:, None, None].expand_as(self.scales))

    def _set(self, scales: Tensor) -> None:
        self.scales.copy_(scales)
        self.inverses.copy_(self.scales.reciprocal())

    def finish(self) -> None:
        """The next micro-batch's scales, from the largest values of this one on all ranks."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(self.amax, dist.ReduceOp.MAX)
        largest = self.amax[..., :1]
        wanted = self.targets[:, None, None] / largest.clamp_min(1e-30)
        self._set(torch.where(largest > 0, wanted, self.scales[..., :1]).expand_as(self.scales))
        self.amax.zero_()

    def _product(
        self,
        role: str,
        turned: bool,
        layer: int,
        x: Tensor,
        x_inverse: Tensor,
        base: Tensor | None = None,
    ) -> Tensor:
        """x times a weight of `role` or (turned) its transpose, in bf16, plus `base` where given. Sums have the fewer bits of fp8's
        tensor cores: gradients are as far from fp32 either way (0.0539). Those over tokens, many more, have all bits (`_add`)."""
        weight = self.weights[role]
        matrix = (weight.turned if turned else weight.plain)[layer]
        out = torch.empty(x.size(0), matrix.size(0), dtype=torch.bfloat16, device=x.device)
        return self.bf16.blas.multiply(
            x, matrix.T, out, base=base, scales=(x_inverse, weight.inverses[layer, 0]), fast=True
        )

    def _add(self, grad: Tensor, d_turned: Tensor, d_inverse: Tensor, x_turned: Tensor, x_inverse: Tensor) -> None:
        """A weight's gradient (N, K) += d x^T, from d (N, M) and x (K, M) in fp8."""
        self.bf16.blas.add_product(grad, d_turned, x_turned.T, (d_inverse, x_inverse))

    def qkv(self, layer: int, x: Tensor, rotary: Rotary) -> tuple[Tensor, Tensor | None]:
        if self.bf16.hopper:
            weight = self.weights["qkv"]
            inverses = self.norm_inverse, weight.inverses[layer, 0]
            return hopper.product_heads(x, weight.plain[layer], *rotary, inverses)
        return self._product("qkv", False, layer, x, self.norm_inverse), None

    def qkv_backward(self, layer: int, d_out: Tensor, x: Tensor) -> Tensor:
        inverse = self.slots("qkv", layer).inverse
        self._add(self.grads.qkv[layer], transpose(d_out), inverse, transpose(x), self.norm_inverse)
        return self._product("qkv", True, layer, d_out, inverse)

    def proj(self, layer: int, y: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        slot = self.slots("y", layer)
        low, turned = torch.empty_like(y, dtype=E4M3), torch.empty(y.shape[::-1], dtype=E4M3, device=y.device)
        quantize(y, slot, low, turned)
        return self._product("proj", False, layer, low, slot.inverse, residual), turned

    def proj_backward(self, layer: int, d_out: Tensor, y_turned: Tensor) -> Tensor:
        inverse = self.slots("proj", layer).inverse
        self._add(self.grads.proj[layer], transpose(d_out), inverse, y_turned, self.slots("y", layer).inverse)
        return self._product("proj", True, layer, d_out, inverse)

    def mlp(self, layer: int, x: Tensor, residual: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        slot = self.slots("h", layer)
        fc = self.weights["fc"]
        h, h_turned = product_relu2_low(x, fc.plain[layer], self.norm_inverse, fc.inverses[layer, 0], slot)
        return self._product("mlp", False, layer, h, slot.inverse, residual), (x, h, h_turned)

    def mlp_backward(self, layer: int, d_out: Tensor, saved: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        x, h, h_turned = saved
        h_inverse, d_inverse = self.slots("h", layer).inverse, self.slots("mlp", layer).inverse
        self._add(self.grads.mlp[layer], transpose(d_out), d_inverse, h_turned, h_inverse)
        z, mlp = self.slots("z", layer), self.weights["mlp"]
        d_z, d_z_turned = self.relu2_backward(
            d_out, mlp.turned[layer], d_inverse, mlp.inverses[layer, 0], h, h_inverse, z
        )
        self._add(self.grads.fc[layer], d_z_turned, z.inverse, transpose(x), self.norm_inverse)
        return self._product("fc", True, layer, d_z, z.inverse)

    def losses(self, x: Tensor, targets: Tensor, vocab_size: int, scale: float, d_x: Tensor) -> Tensor:
        logits = self._product("head", False, 0, x, self.norm_inverse)
        d_logits = torch.empty_like(logits, dtype=E5M2)
        losses = cross_entropy(logits, targets, vocab_size, SOFTCAP, LOW_SCALE, d_logits)
        del logits  # before the transpose takes as much again
        inverse, weight = torch.full((), scale / LOW_SCALE, device=x.device), self.weights["head"]
        self._add(self.bf16.head_grad, transpose(d_logits), inverse, transpose(x), self.norm_inverse)
        self.bf16.blas.multiply(d_logits, weight.turned[0].T, d_x, scales=(inverse, weight.inverses[0, 0]))
        return losses

    def state_dict(self) -> dict[str, Tensor]:
        return {"fp8_scales": self.scales[..., 0].clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        scales = state.get("fp8_scales")
        if scales is None or scales.shape != self.scales.shape[:2]:
            raise InputError("the checkpoint has no fp8 scales of this model; resume it with precision=bf16")
        self._set(scales.to(self.scales.device)[..., None].expand_as(self.scales))
        self.rehearsals = 0
