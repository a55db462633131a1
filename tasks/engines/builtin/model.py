"""The model: a decoder-only transformer, written as plain PyTorch. This file is the definition of what is computed.

The faster GPU path (`fused.py`) computes the same function from the same parameters. Names and shapes of the parameters are
those of nanochat, so that checkpoints travel both ways. Parts and where they come from: rotary positions (RoFormer,
arXiv 2104.09864), RMS norm without weights (arXiv 1910.07467), norm of queries and keys (arXiv 2302.05442), squared ReLU (Primer,
arXiv 2109.08668), value embeddings after ResFormer (arXiv 2410.17897), soft-capped logits (Gemma 2, arXiv 2408.00118).
"""

import math
from concurrent.futures import ThreadPoolExecutor

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tasks.cores import cores
from tasks.engines.builtin.attention import attend
from tasks.records.scaling import SMEAR_CHANNELS, VE_GATE_CHANNELS, ModelShape

ROTARY_BASE = 100_000
QK_SCALE = 1.2
SOFTCAP = 15.0


def norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last dimension; eps is the dtype's."""
    return F.rms_norm(x, (x.size(-1),))


def rotary_tables(length: int, head_dim: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin of position x frequency, each (length, head_dim / 2), computed in fp32."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), 1.0 / ROTARY_BASE**exponents)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[j], x[j + D/2]) of (B, T, H, D) by minus the position's angles."""
    left, right = x.chunk(2, dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)


class Memory:
    """What a model keeps of the tokens that it has read, so that it can read on: keys and values of each layer, the last embedding."""

    def __init__(self) -> None:
        self.length = 0
        """Tokens that were read."""
        self.embedding: Tensor | None = None
        """Of the last token, normed: (B, 1, C)."""
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, S, H, D) of all tokens so far, given those of the new ones (B, T, H, D)."""
        if layer in self._kept:
            k, v = (torch.cat([old, new], dim=1) for old, new in zip(self._kept[layer], (k, v), strict=True))
        self._kept[layer] = k, v
        return k, v


class Linear(nn.Linear):
    """A product without bias whose fp32 weight is cast to the dtype of the activations."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, bias=False)

    def reset_parameters(self) -> None:
        """Nothing: `GPT.init_weights` or a checkpoint gives all weights their values."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class Embedding(nn.Embedding):
    """A table of rows, likewise without values at first."""

    def reset_parameters(self) -> None:
        """Nothing: see `Linear`."""


class Attention(nn.Module):
    def __init__(self, config: ModelShape, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.n_kv_head, config.head_dim
        self.window = config.windows[layer]
        self.c_q = Linear(config.n_embd, self.heads * self.head_dim)
        self.c_k = Linear(config.n_embd, self.kv_heads * self.head_dim)
        self.c_v = Linear(config.n_embd, self.kv_heads * self.head_dim)
        self.c_proj = Linear(config.n_embd, config.n_embd)
        self.ve_gate = Linear(VE_GATE_CHANNELS, self.kv_heads) if config.has_value_embedding(layer) else None

    def forward(
        self, x: Tensor, value_embedding: Tensor | None, cos: Tensor, sin: Tensor, memory: Memory | None = None
    ) -> Tensor:
        batch, length, _ = x.shape
        q = self.c_q(x).view(batch, length, self.heads, self.head_dim)
        k = self.c_k(x).view(batch, length, self.kv_heads, self.head_dim)
        v = self.c_v(x).view(batch, length, self.kv_heads, self.head_dim)
        if self.ve_gate is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., :VE_GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * value_embedding.view_as(v)
        q, k = norm(rotate(q, cos, sin)) * QK_SCALE, norm(rotate(k, cos, sin)) * QK_SCALE
        if memory is not None:
            k, v = memory.extend(self.layer, k, v)
        return self.c_proj(attend(q, k, v, self.window).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config: ModelShape) -> None:
        super().__init__()
        self.c_fc = Linear(config.n_embd, 4 * config.n_embd)
        self.c_proj = Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: ModelShape, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, value_embedding: Tensor | None, cos: Tensor, sin: Tensor, memory: Memory | None = None
    ) -> Tensor:
        x = x + self.attn(norm(x), value_embedding, cos, sin, memory)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    """The whole model. Tokens (B, T) in; logits (B, T, vocab_size) fp32, or a loss in nats, out.

    A new one holds no values yet: call `init_weights`, or load a state.

    Weights of products are fp32 masters; the two kinds of embedding are held in `embedding_dtype`, which is also the dtype of
    the activations (bf16 on a GPU, fp32 on a CPU).
    """

    def __init__(self, config: ModelShape, embedding_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        padded, kv_width = config.padded_vocab_size, config.kv_width
        self.transformer = nn.ModuleDict(
            {
                "wte": Embedding(padded, config.n_embd, dtype=embedding_dtype),
                "h": nn.ModuleList([Block(config, layer) for layer in range(config.n_layer)]),
            }
        )
        self.lm_head = Linear(config.n_embd, padded)
        self.resid_lambdas = nn.Parameter(torch.ones(config.n_layer))
        self.x0_lambdas = nn.Parameter(torch.zeros(config.n_layer))
        self.smear_gate = Linear(SMEAR_CHANNELS, 1)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(torch.full((1,), 0.2))
        self.value_embeds = nn.ModuleDict(
            {
                str(layer): Embedding(padded, kv_width, dtype=embedding_dtype)
                for layer in range(config.n_layer)
                if config.has_value_embedding(layer)
            }
        )
        self._rotary: dict[tuple[int, torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of activations."""
        return self.transformer["wte"].weight.dtype

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Draw the initial weights on the CPU in fp32, so that a seed means the same weights on every device and rank.

        Each tensor has its own generator, so that they can be drawn side by side.
        """
        bound = math.sqrt(3 / self.config.n_embd)
        draws = [
            (self.transformer["wte"].weight, "normal_", 0.0, 0.8),
            (self.lm_head.weight, "normal_", 0.0, 0.001),
            (self.smear_gate.weight, "uniform_", 0.0, 0.02),
        ]
        draws += [(embedding.weight, "uniform_", -bound, bound) for embedding in self.value_embeds.values()]
        for block in self.transformer["h"]:
            attention = block.attn
            draws += [
                (part.weight, "uniform_", -bound, bound) for part in (attention.c_q, attention.c_k, attention.c_v)
            ]
            draws.append((block.mlp.c_fc.weight, "uniform_", -0.4 * bound, 0.4 * bound))
            if attention.ve_gate is not None:
                draws.append((attention.ve_gate.weight, "uniform_", 0.0, 0.02))
            attention.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()

        def draw(place: int) -> Tensor:
            parameter, distribution, first, second = draws[place]
            generator = torch.Generator().manual_seed((seed * 1_000_003 + place) % 2**63)
            values = torch.empty(parameter.shape, dtype=torch.float32)
            return getattr(values, distribution)(first, second, generator=generator)

        with ThreadPoolExecutor(min(cores(), 16)) as pool:
            for (parameter, *_), values in zip(draws, pool.map(draw, range(len(draws))), strict=True):
                parameter.copy_(values)
        depth = torch.arange(self.config.n_layer, dtype=torch.float64) / max(self.config.n_layer - 1, 1)
        self.resid_lambdas.copy_(1.15 - 0.10 * depth)
        self.x0_lambdas.copy_(0.20 - 0.15 * depth)
        self.smear_lambda.zero_()
        self.backout_lambda.fill_(0.2)

    def rotary(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The tables of `rotary_tables` for this model, in the dtype of activations; kept for the next call."""
        key = (length, device, self.dtype)
        if key not in self._rotary:
            self._rotary[key] = rotary_tables(length, self.config.head_dim, device, self.dtype)
        return self._rotary[key]

    def embed(self, tokens: Tensor, memory: Memory | None = None) -> Tensor:
        """Normed token embeddings (B, T, C), each with a gated part of the one before it mixed in."""
        x = norm(self.transformer["wte"](tokens))
        first, before = x[:, :1], x[:, :-1]
        if memory is not None:
            if memory.embedding is not None:
                first, before = x[:, :0], torch.cat([memory.embedding, before], dim=1)
            memory.embedding = x[:, -1:]
        x = x[:, first.size(1) :]
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[..., :SMEAR_CHANNELS]))
        return torch.cat([first, x + gate * before], dim=1)

    def trunk(self, tokens: Tensor, memory: Memory | None = None) -> Tensor:
        """Tokens (B, T) -> what the output matrix sees, (B, T, C). With a memory they follow those that it knows, and it learns them."""
        start = memory.length if memory is not None else 0
        end = start + tokens.size(1)
        cos, sin = self.rotary(end if memory is None else max(end, self.config.sequence_len), tokens.device)
        cos, sin = cos[start:end], sin[start:end]
        x = x0 = middle = self.embed(tokens, memory)
        for layer, block in enumerate(self.transformer["h"]):
            x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            embedding = self.value_embeds[str(layer)](tokens) if str(layer) in self.value_embeds else None
            x = block(x, embedding, cos, sin, memory)
            if layer == self.config.n_layer // 2:
                middle = x
        if memory is not None:
            memory.length = end
        return norm(x - self.backout_lambda.to(x.dtype) * middle)

    def head(self, x: Tensor) -> Tensor:
        """Soft-capped logits (..., vocab_size) in fp32 of the trunk's output (..., C)."""
        logits = self.lm_head(x)[..., : self.config.vocab_size].float()
        return SOFTCAP * torch.tanh(logits / SOFTCAP)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, reduction: str = "mean") -> Tensor:
        """Logits (B, T, vocab_size), or with targets (B, T) the cross-entropy in nats: its mean, sum or ("none") each token's.

        A target of -1 counts for nothing: 0 nats, and not among the tokens of the mean.
        """
        logits = self.head(self.trunk(tokens))
        if targets is None:
            return logits
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten().long(), ignore_index=-1, reduction=reduction)
        return loss.view(targets.shape) if reduction == "none" else loss
