"""The GPU path: forward and backward of `model.py` written out, layer by layer, over Triton kernels, cuBLAS and fused attention.

Written out rather than left to autograd so that (1) weights are cast once per optimizer step, not per micro-batch; (2) weight
gradients are summed in fp32 inside their products; (3) passes over memory are merged; (4) only what the backward needs is kept;
(5) nothing is traced or compiled but a few small kernels, so the first step comes within seconds.
Kept per layer and token, in widths of bf16 activations: input, its norm, q, k, v, attention's output, the middle of the layer, its
norm, and 4 for the MLP.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tasks.errors import InputError
from tasks.trainer.attention import choose_backend
from tasks.trainer.kernels.heads import heads, heads_backward
from tasks.trainer.kernels.loss import cross_entropy
from tasks.trainer.kernels.rows import embed, embed_backward, mix_norm, mix_norm_backward, norm, norm_backward
from tasks.trainer.model import GPT, QK_SCALE, SOFTCAP, VE_GATE_CHANNELS
from tasks.trainer.products import Bf16Products, Products
from tasks.trainer.storage import storage_of

LOGIT_ROWS = 8192
"""Tokens whose logits exist at a time."""


@dataclass
class Saved:
    """What the backward of one layer needs of its forward."""

    x: Tensor
    normed: object
    qkv: Tensor
    rstd: Tensor
    attention: tuple[Tensor, Tensor, Tensor, Tensor]
    """q, k, v as leaves and the output that autograd knows the way back from."""
    proj_input: object
    middle: Tensor
    mlp: object


class Fused:
    """A model's computation on one CUDA GPU, in bf16 (`products` says how products are done)."""

    def __init__(self, model: GPT, products: Products | None = None) -> None:
        config = model.config
        if config.n_kv_head != config.n_head:
            raise InputError(
                f"{config.n_kv_head} key heads for {config.n_head} query heads: the fused path has no grouped queries"
            )
        self.model = model
        self.storage = storage_of(model)
        device = model.lm_head.weight.device
        self.products = products or Bf16Products(self.storage)
        self.attend, attention = choose_backend(config.windows, config.sequence_len, config.head_dim, device)
        self.one = torch.ones((), device=device)
        self.version = -1
        self.description = f"{device.type}, {self.products.name} products, fused kernels, attention by {attention}"

    def invalidate(self) -> None:
        self.storage.version += 1

    def state_dict(self) -> dict[str, Tensor]:
        return self.products.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.products.load_state_dict(state)

    def _refresh(self) -> None:
        if self.version != self.storage.version:
            self.products.refresh()
            self.version = self.storage.version

    def _values(self, layer: int, flat: Tensor, normed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """What `heads` wants of a layer with a value embedding."""
        if str(layer) not in self.model.value_embeds:
            return None
        gate = self.model.transformer["h"][layer].attn.ve_gate.weight
        return flat, normed, gate, self.model.value_embeds[str(layer)].weight

    def _trunk(self, tokens: Tensor, keep: list[Saved] | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(normed output, last x, mid x, x0), each (M, C); fills `keep` when a backward follows."""
        model, products = self.model, self.products
        config, flat = model.config, tokens.view(-1)
        batch, length = tokens.shape
        cos, sin = model.rotary(length, tokens.device)
        x = x0 = mid = embed(tokens, model.transformer["wte"].weight, model.smear_gate.weight, model.smear_lambda)
        for layer in range(config.n_layer):
            mixed, normed = mix_norm(x, x0, model.resid_lambdas[layer], model.x0_lambdas[layer])
            qkv, saved_normed = products.qkv(layer, normed)
            rstd = heads(qkv, cos, sin, length, self._values(layer, flat, normed), QK_SCALE)
            q, k, v = qkv.view(batch, length, 3, config.n_head, config.head_dim).unbind(2)
            with torch.set_grad_enabled(keep is not None):
                if keep is not None:
                    q, k, v = (part.detach().requires_grad_() for part in (q, k, v))
                y = self.attend(q, k, v, config.windows[layer])
            middle, saved_y = products.proj(layer, y.detach().reshape(mixed.shape), mixed)
            after, saved_mlp = products.mlp(layer, norm(middle), middle, keep is not None)
            if keep is not None:
                keep.append(Saved(x, saved_normed, qkv, rstd, (q, k, v, y), saved_y, middle, saved_mlp))
            x = after
            if layer == config.n_layer // 2:
                mid = x
        _, out = mix_norm(x, mid, self.one, -model.backout_lambda[0], store_mix=False)
        return out, x, mid, x0

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        self._refresh()
        out, *_ = self._trunk(tokens.contiguous(), None)
        return self._loss(out, targets.reshape(-1), None)[0].view(targets.shape)

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        self._refresh()
        out, *_ = self._trunk(tokens.contiguous(), None)
        logits = self.products.logits(out, None)[:, : self.model.config.vocab_size].float()
        return (SOFTCAP * torch.tanh(logits / SOFTCAP)).view(*tokens.shape, -1)

    def _loss(self, out: Tensor, targets: Tensor, scale: float | None) -> tuple[Tensor, Tensor | None]:
        """Nats (M,), and with a scale the gradient of `out`; lm_head's gradient is added on the way. Logits exist piece by piece."""
        losses, d_out = [], None if scale is None else torch.empty_like(out)
        self.products.start_head(out)
        for start in range(0, len(out), LOGIT_ROWS):
            rows = slice(start, start + LOGIT_ROWS)
            logits = self.products.logits(out[rows], rows)
            losses.append(cross_entropy(logits, targets[rows], self.model.config.vocab_size, SOFTCAP, scale))
            if d_out is not None:
                self.products.logits_backward(logits, out[rows], rows, d_out[rows])
        return torch.cat(losses), d_out

    @torch.no_grad()
    def backward(self, tokens: Tensor, targets: Tensor, scale: float) -> Tensor:
        self._refresh()
        model, storage, products = self.model, self.storage, self.products
        tokens = tokens.contiguous()
        config, grads, flat = model.config, storage.grads, tokens.view(-1)
        cos, sin = model.rotary(tokens.size(1), tokens.device)
        keep: list[Saved] = []
        out, last, mid, x0 = self._trunk(tokens, keep)
        losses, d_out = self._loss(out, targets.reshape(-1), scale / targets.numel())
        storage.ready(model.lm_head.weight)

        layers, rows = config.n_layer, flat.numel()
        sums = torch.empty(layers + 1, 2, rows, dtype=torch.float32, device=out.device)
        backout = -model.backout_lambda[0]
        dx = d_last = mix_norm_backward(last, mid, self.one, backout, d_out, None, None, None, sums[layers])
        if config.n_layer // 2 == layers - 1:
            dx = d_last * (1 + backout)
        d_x0 = torch.zeros_like(x0)
        del out, last, mid, d_out
        for layer in reversed(range(layers)):
            saved = keep.pop()
            block = model.transformer["h"][layer]
            d_normed = products.mlp_backward(layer, dx, saved.mlp)
            dx = norm_backward(saved.middle, d_normed, dx.clone() if dx is d_last else dx)
            d_y = products.proj_backward(layer, dx, saved.proj_input)
            q, k, v, y = saved.attention
            d_qkv = torch.autograd.grad(y, (q, k, v), d_y.view_as(y))
            values = self._values(layer, flat, products.plain(saved.normed))
            d_table = grads[model.value_embeds[str(layer)].weight] if values else None
            d_qkv, d_logit = heads_backward(
                d_qkv, saved.qkv, saved.rstd, cos, sin, tokens.size(1), values, d_table, QK_SCALE
            )
            d_normed = products.qkv_backward(layer, d_qkv, saved.normed)
            if d_logit is not None:
                gate = block.attn.ve_gate.weight
                d_normed[:, :VE_GATE_CHANNELS] += d_logit @ gate
                grads[gate] += d_logit.T @ values[1][:, :VE_GATE_CHANNELS].float()
                storage.ready(model.value_embeds[str(layer)].weight)
            extra = (d_last, backout) if layer == layers // 2 + 1 else None
            a, b = model.resid_lambdas[layer], model.x0_lambdas[layer]
            dx = mix_norm_backward(saved.x, x0, a, b, d_normed, dx, d_x0, extra, sums[layer])
            for parameter in block.parameters():
                storage.ready(parameter)
            del saved, q, k, v, y, d_qkv, d_normed, d_y
        wte = model.transformer["wte"].weight
        d_gate, d_smear = embed_backward(tokens, wte, model.smear_gate.weight, model.smear_lambda, d_x0, dx, grads[wte])
        totals = sums.sum(-1)
        for parameter, gradient in (
            (model.smear_gate.weight, d_gate),
            (model.smear_lambda, d_smear),
            (model.resid_lambdas, totals[:layers, 0]),
            (model.x0_lambdas, totals[:layers, 1]),
            (model.backout_lambda, -totals[layers, 1]),
        ):
            grads[parameter] += gradient
        self._all_ready((wte, model.smear_gate.weight, model.smear_lambda, model.resid_lambdas, model.x0_lambdas))
        self._all_ready((model.backout_lambda,))
        return losses.sum() / targets.numel()

    def _all_ready(self, parameters: tuple[nn.Parameter, ...]) -> None:
        for parameter in parameters:
            self.storage.ready(parameter)
