"""The GPU path: forward and backward of `model.py` written out, layer by layer, over Triton kernels, cuBLAS and fused attention.

Written out rather than left to autograd so that (1) weights are cast once per optimizer step, not per micro-batch; (2) weight
gradients are summed in fp32 inside their products; (3) passes over memory are merged; (4) only what the backward needs is kept;
(5) nothing is traced or compiled but a few small kernels, so the first step comes within seconds.
Kept per layer and token, in widths of bf16 activations: the input's norm, q, k, v, attention's output, the norm of the middle of the
layer, and 4 for the MLP.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from tasks.engines.builtin.attention import attend_backward, choose_backend
from tasks.engines.builtin.fp8 import Fp8Products
from tasks.engines.builtin.graphs import Replayed, replayable, small
from tasks.engines.builtin.kernels.heads import heads, heads_backward
from tasks.engines.builtin.kernels.rows import (
    embed,
    embed_backward,
    mix_norm,
    mix_norm_backward,
    norm,
    norm_backward,
    weigh,
)
from tasks.engines.builtin.kernels.scatter import order_of
from tasks.engines.builtin.memory import LOGIT_ROWS
from tasks.engines.builtin.model import GPT, QK_SCALE, SOFTCAP, VE_GATE_CHANNELS
from tasks.engines.builtin.products import Bf16Products
from tasks.engines.builtin.storage import storage_of

Result = TypeVar("Result")
SMALL = 2.0**-60
"""Stands for a factor of 0 in the backward pass, which divides by factors: as good as 0 beside anything else."""


@dataclass
class Saved:
    """What the backward of one layer needs of its forward."""

    value: tuple[Tensor, Tensor]
    """The norm of the layer's mixed input, or where that is in fp8 the mix, and 1/rms."""
    normed: Tensor
    first: Tensor
    qkv: Tensor
    heads_rstd: Tensor
    attention: tuple[Tensor, Tensor, Tensor, Tensor]
    """q, k, v as leaves and the output that autograd knows the way back from."""
    proj_input: Tensor
    middle: Tensor
    """The residual stream between attention and MLP; its norm where that is not in fp8."""
    middle_rstd: Tensor
    mlp: tuple[Tensor, ...]


class Fused:
    """A model's computation on one CUDA GPU. Evaluation is in bf16 whatever the precision of training."""

    def __init__(self, model: GPT, precision: str, deterministic: bool = False, attention: str = "auto") -> None:
        config = model.config
        self.model = model
        self.storage = storage_of(model)
        device = model.lm_head.weight.device
        self.evaluation = Bf16Products(self.storage)
        self.training = Fp8Products(self.evaluation) if precision == "fp8" else self.evaluation
        self.attend, backend = choose_backend(
            frozenset(config.windows), config.sequence_len, config.head_dim, device, deterministic, attention
        )
        self.one = torch.ones((), device=device)
        self.versions: dict[str, int] = {}
        self.graphed = replayable(model)
        self.replayed: dict[object, Replayed] = {}
        self.description = f"{device.type}, {precision} products, fused kernels, attention by {backend}"

    def invalidate(self) -> None:
        self.storage.version += 1

    def state_dict(self) -> dict[str, Tensor]:
        return self.training.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.training.load_state_dict(state)

    def _refresh(self, products: Bf16Products | Fp8Products) -> None:
        """Cast the weights anew if they changed since these products' last use."""
        if self.versions.get(products.name) != self.storage.version:
            self._replay("refresh", products.refresh) if products is self.training else products.refresh()
            self.versions[products.name] = self.storage.version

    def _replay(self, key: object, work: Callable[..., Result], *inputs: Tensor) -> Result:
        """Do work of a training step, by a CUDA graph where it is small. `inputs`: tokens first."""
        if not self.graphed or not small(self.model.config, inputs[0].numel() if inputs else 0):
            return work(*inputs)
        if key not in self.replayed:
            self.replayed[key] = Replayed(work)
        return self.replayed[key](*inputs)

    def _values(self, layer: int, flat: Tensor, normed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What `heads` wants of a layer with a value embedding."""
        if str(layer) not in self.model.value_embeds:
            return None
        gate = self.model.transformer["h"][layer].attn.ve_gate.weight
        return flat, normed, gate, self.model.value_embeds[str(layer)].weight

    def _trunk(self, tokens: Tensor, keep: list[Saved] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(normed output, last x, mid x, x0), each (M, C); fills `keep` when a backward follows."""
        model, products = self.model, self.evaluation if keep is None else self.training
        config, flat = model.config, tokens.view(-1)
        batch, length = tokens.shape
        rotary = (*model.rotary(length, tokens.device), length, QK_SCALE)
        x = x0 = mid = embed(tokens, model.transformer["wte"].weight, model.smear_gate.weight, model.smear_lambda)
        for layer in range(config.n_layer):
            a, b = model.resid_lambdas[layer], model.x0_lambdas[layer]
            mixed, normed, first, mixed_rstd = mix_norm(x, x0, a, b, low=products.low_norms)
            qkv, rstd = products.qkv(layer, normed, rotary)
            rstd = heads(qkv, *rotary, self._values(layer, flat, first), rstd)
            q, k, v = qkv.view(batch, length, 3, config.n_head, config.head_dim).unbind(2)
            with torch.set_grad_enabled(keep is not None):
                if keep is not None:
                    q, k, v = (part.detach().requires_grad_() for part in (q, k, v))
                y = self.attend(q, k, v, config.windows[layer])
            middle, saved_y = products.proj(layer, y.detach().reshape(mixed.shape), mixed)
            middle_normed, middle_rstd = norm(middle, products.low_norms)
            after, saved_mlp = products.mlp(layer, middle_normed, middle)
            if keep is not None:
                value, middle_value = (mixed, middle) if products.low_norms else (normed, middle_normed)
                attention = (q, k, v, y)
                keep.append(
                    Saved(
                        (value, mixed_rstd), normed, first, qkv, rstd, attention, saved_y, middle_value, middle_rstd, saved_mlp
                    )
                )  # fmt: skip
            x = after
            if layer == config.n_layer // 2:
                mid = x
        _, out, _, _ = mix_norm(x, mid, self.one, -model.backout_lambda[0], store_mix=False, low=products.low_norms)
        return out, x, mid, x0

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        self._refresh(self.evaluation)
        out, *_ = self._trunk(tokens.contiguous(), None)
        return self._loss(self.evaluation, out, targets.reshape(-1), None)[0].view(targets.shape)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        self._refresh(self.evaluation)
        out, *_ = self._trunk(tokens.contiguous(), None)
        logits = self.evaluation.logits(out)[:, : self.model.config.vocab_size].float()
        return (SOFTCAP * torch.tanh(logits / SOFTCAP)).view(*tokens.shape, -1)

    def _loss(
        self, products: Bf16Products | Fp8Products, out: Tensor, targets: Tensor, scale: float | None
    ) -> tuple[Tensor, Tensor | None]:
        """Nats (M,), and with a scale the gradient of `out`; lm_head's gradient is added on the way. Logits exist piece by piece."""
        losses, d_out = [], None if scale is None else torch.empty_like(out, dtype=self.model.dtype)
        for start in range(0, len(out), LOGIT_ROWS):
            rows = slice(start, start + LOGIT_ROWS)
            d_rows = None if d_out is None else d_out[rows]
            losses.append(products.losses(out[rows], targets[rows], self.model.config.vocab_size, scale, d_rows))
        return torch.cat(losses), d_out

    @torch.no_grad()
    def backward(self, tokens: Tensor, targets: Tensor, scale: float) -> Tensor:
        self._refresh(self.training)
        tokens = tokens.contiguous()
        if isinstance(self.training, Fp8Products) and self.training.rehearsals:
            self._rehearse(tokens, targets, scale)
        key = (tokens.shape, targets.dtype, scale)
        return self._replay(key, lambda x, y: self._backward(x, y, scale), tokens, targets).clone()

    def _rehearse(self, tokens: Tensor, targets: Tensor, scale: float) -> None:
        """Find the scales of fp8 on the first micro-batch; the gradients of that are thrown away."""
        ready, self.storage.on_ready = self.storage.on_ready, None
        self.training.guess(scale / targets.numel())
        while self.training.rehearsals:
            self.training.rehearsals -= 1
            self._backward(tokens, targets, scale)
        self.storage.zero_grads()
        self.storage.on_ready = ready

    def _backward(self, tokens: Tensor, targets: Tensor, scale: float) -> Tensor:
        model, storage, products = self.model, self.storage, self.training
        config, grads, flat = model.config, storage.grads, tokens.view(-1)
        rotary = (*model.rotary(tokens.size(1), tokens.device), tokens.size(1), QK_SCALE)
        keep: list[Saved] = []
        out, last, mid, x0 = self._trunk(tokens, keep)
        losses, d_out = self._loss(products, out, targets.reshape(-1), scale / targets.numel())
        storage.ready(model.lm_head.weight)

        layers, rows, order = config.n_layer, flat.numel(), order_of(flat)
        sums = torch.empty(layers + 1, 2, rows, dtype=torch.float32, device=out.device)
        backout = -model.backout_lambda[0]
        slots = products.slots
        d_last, low = mix_norm_backward(
            (last, mid), "parts", self.one, backout, d_out, None, None, sums[layers], slots("mlp", layers - 1)
        )
        dx, inputs = d_last, [d_last]
        a_of = torch.where(model.resid_lambdas == 0, SMALL, model.resid_lambdas)
        del out, last, mid, d_out
        for layer in reversed(range(layers)):
            saved = keep.pop()
            block = model.transformer["h"][layer]
            d_normed = products.mlp_backward(layer, dx if low is None else low, saved.mlp)
            dx, low = norm_backward(
                saved.middle, not products.low_norms, saved.middle_rstd, d_normed, dx, slots("proj", layer)
            )
            d_y = products.proj_backward(layer, dx if low is None else low, saved.proj_input)
            q, k, v, y = saved.attention
            d_qkv = attend_backward(y, (q, k, v), d_y.view_as(y))
            values = self._values(layer, flat, saved.first)
            d_table = grads[model.value_embeds[str(layer)].weight] if values else None
            d_qkv, d_logit = heads_backward(
                d_qkv, saved.qkv, saved.heads_rstd, *rotary, values, d_table, order, slots("qkv", layer)
            )
            d_normed = products.qkv_backward(layer, d_qkv, saved.normed)
            if d_logit is not None:
                gate = block.attn.ve_gate.weight
                d_normed[:, :VE_GATE_CHANNELS] += d_logit @ gate
                grads[gate] += d_logit.T @ values[1][:, :VE_GATE_CHANNELS].float()
                self._all_ready(model.value_embeds[str(layer)].weight)
            extra = (d_last, backout) if layer == layers // 2 + 1 else None
            before = slots("mlp", layer - 1) if layer else None
            dx, low = mix_norm_backward(
                saved.value, "mix" if products.low_norms else "norm", a_of[layer], model.x0_lambdas[layer], d_normed, dx, extra,
                sums[layer], before,
            )  # fmt: skip
            inputs.append(dx)
            self._all_ready(*block.parameters())
            del saved, q, k, v, y, d_qkv, d_normed, d_y
        d_x0, of_a, of_b, of_backout = self._mixing(inputs, x0, sums.sum(-1), a_of, backout)
        wte = model.transformer["wte"].weight
        d_gate, d_smear = embed_backward(
            tokens, wte, model.smear_gate.weight, model.smear_lambda, d_x0, dx, grads[wte], order
        )
        products.finish()
        for parameter, gradient in (
            (model.smear_gate.weight, d_gate),
            (model.smear_lambda, d_smear),
            (model.resid_lambdas, of_a),
            (model.x0_lambdas, of_b),
            (model.backout_lambda, of_backout),
        ):
            grads[parameter] += gradient
        self._all_ready(wte, model.smear_gate.weight, model.smear_lambda, model.resid_lambdas)
        self._all_ready(model.x0_lambdas, model.backout_lambda)
        return losses.sum() / targets.numel()

    def _mixing(
        self, inputs: list[Tensor], x0: Tensor, totals: Tensor, a: Tensor, backout: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x0 and of the three kinds of factors of the residual stream.

        A layer takes z = a x + b x0. `inputs` are the gradients dx of x, those of the last layer first, after the gradient of what
        the last layer gives: dx = a dz, so dz, which x0 and b need, is dx / a. What one layer's dx got from the backout on the way
        comes off again; there dz is as exact as the rounded sum lets it be, and lost should that layer's a be 0, which nothing
        sets (it begins near 1.1). `totals` (layers + 1, 2): each layer's dz.z and, last, the final mix's dz.mid.
        """
        b, layers = self.model.x0_lambdas, len(inputs) - 1
        middle = layers // 2 + 1
        weights = (b / a).flip(0)
        weights = torch.cat([-backout * weights[None, layers - 1 - middle], weights])
        d_x0, along = weigh(inputs, weights, x0)
        of_b = along[1:].flip(0)
        of_b[middle] -= backout * along[0]
        of_b = of_b / a
        return d_x0, (totals[:layers, 0] - b * of_b) / a, of_b, -totals[layers, 1]

    def _all_ready(self, *parameters: nn.Parameter) -> None:
        for parameter in parameters:
            self.storage.ready(parameter)
