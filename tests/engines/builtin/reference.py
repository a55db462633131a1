"""The model's formulas in float64, from tensors by name, with loops over layers and nothing shared with the trainer but names."""

import torch
from torch import Tensor

from tasks.engines.builtin.model import GPT
from tasks.records.scaling import ModelShape


def perturbed(config: ModelShape, seed: int) -> dict[str, Tensor]:
    """Initial weights plus noise, so that no gradient is zero."""
    model = GPT(config)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + 0.02 * torch.randn(tensor.shape, generator=generator)
        for name, tensor in model.state_dict().items()
    }


def _norm(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + torch.finfo(torch.float32).eps).sqrt()


def _rotated(x: Tensor) -> Tensor:
    """(B, T, H, D): complex pairs (j, j + D/2) times exp(-i position / 100000^(2j/D))."""
    half = x.size(-1) // 2
    angle = torch.outer(torch.arange(x.size(1)).double(), 100_000.0 ** -(torch.arange(half).double() / half))
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angle), -angle)[:, None, :]
    return torch.cat([turned.real, turned.imag], -1)


def _attention(config: ModelShape, weights: dict[str, Tensor], layer: int, x: Tensor, tokens: Tensor) -> Tensor:
    prefix, (batch, length, width) = f"transformer.h.{layer}.attn.", x.shape
    heads, size = config.n_head, config.n_embd // config.n_head
    q, k, v = ((x @ weights[f"{prefix}c_{part}.weight"].T).view(batch, length, heads, size) for part in "qkv")
    if f"{prefix}ve_gate.weight" in weights:
        gate = 3 / (1 + torch.exp(-(x[..., :12] @ weights[f"{prefix}ve_gate.weight"].T)))
        embedding = weights[f"value_embeds.{layer}.weight"][tokens]
        v = v + gate[..., None] * embedding.view(batch, length, heads, size)
    q, k = 1.2 * _norm(_rotated(q)), 1.2 * _norm(_rotated(k))
    letter = (config.window_pattern * config.n_layer)[layer]
    quarter = -(-config.sequence_len // 4)
    window = quarter + -quarter % 128 if letter == "S" and layer < config.n_layer - 1 else config.sequence_len
    out = torch.zeros_like(v)
    for t in range(length):
        first = max(0, t - window)
        scores = torch.einsum("bhd,bshd->bhs", q[:, t], k[:, first : t + 1]) / size**0.5
        chances = torch.exp(scores) / torch.exp(scores).sum(-1, keepdim=True)
        row = torch.einsum("bhs,bshd->bhd", chances, v[:, first : t + 1])
        out = torch.cat([out[:, :t], row[:, None], out[:, t + 1 :]], 1)
    return out.reshape(batch, length, width) @ weights[f"{prefix}c_proj.weight"].T


def logits_of(config: ModelShape, weights: dict[str, Tensor], tokens: Tensor) -> Tensor:
    """Capped logits (B, T, vocabulary) in float64."""
    x = _norm(weights["transformer.wte.weight"][tokens])
    gate = weights["smear_lambda"] / (1 + torch.exp(-(x[:, 1:, :24] @ weights["smear_gate.weight"].T)))
    x = x0 = torch.cat([x[:, :1], x[:, 1:] + gate * x[:, :-1]], 1)
    for layer in range(config.n_layer):
        x = weights["resid_lambdas"][layer] * x + weights["x0_lambdas"][layer] * x0
        x = x + _attention(config, weights, layer, _norm(x), tokens)
        hidden = (_norm(x) @ weights[f"transformer.h.{layer}.mlp.c_fc.weight"].T).clamp_min(0) ** 2
        x = x + hidden @ weights[f"transformer.h.{layer}.mlp.c_proj.weight"].T
        if layer == config.n_layer // 2:
            middle = x
    x = _norm(x - weights["backout_lambda"] * middle)
    return 15 * torch.tanh((x @ weights["lm_head.weight"][: config.vocab_size].T) / 15)


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Nats (B, T); 0 where the target is -1."""
    chosen = logits.gather(-1, targets.clamp_min(0)[..., None])[..., 0]
    return torch.where(targets >= 0, logits.exp().sum(-1).log() - chosen, 0.0)
