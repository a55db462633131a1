"""A language model that FabRating trained, for Hugging Face transformers: load its folder with `trust_remote_code=True`.

This file stands alone: it is copied beside the weights. It computes what FabRating's own model computes: rotary positions
(arXiv 2104.09864), RMS norm without weights (arXiv 1910.07467), norm of queries and keys (arXiv 2302.05442), squared ReLU
(arXiv 2109.08668), value embeddings (arXiv 2410.17897), soft-capped logits (arXiv 2408.00118). A part of each token's embedding
goes to the next token ("smear"), and a part of the middle layer's output is taken off the last one's ("backout").

Shapes: B sequences, T new tokens, S tokens with those before, H heads, D channels a head, C channels.
"""

import inspect
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

CACHE = "cache" if "cache" in inspect.signature(CausalLMOutputWithPast).parameters else "past_key_values"
"""What this version of transformers calls the cache."""


class FabRatingConfig(PretrainedConfig):
    """Shape of the model. `windows`: how many earlier positions each layer sees; `value_layers`: those with value embeddings."""

    model_type = "fabrating"

    def __init__(
        self,
        vocab_size: int = 32_768,
        hidden_size: int = 256,
        num_hidden_layers: int = 4,
        num_attention_heads: int = 2,
        num_key_value_heads: int = 2,
        max_position_embeddings: int = 2_048,
        windows: list[int] | None = None,
        value_layers: list[int] | None = None,
        smear_channels: int = 24,
        gate_channels: int = 12,
        rotary_base: float = 100_000,
        qk_scale: float = 1.2,
        softcap: float = 15.0,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_key_value_heads
        self.head_dim = hidden_size // num_attention_heads
        self.max_position_embeddings = max_position_embeddings
        self.windows = [max_position_embeddings] * num_hidden_layers if windows is None else windows
        self.value_layers = [] if value_layers is None else value_layers
        self.smear_channels = smear_channels
        self.gate_channels = gate_channels
        self.rotary_base = rotary_base
        self.qk_scale = qk_scale
        self.softcap = softcap
        kwargs.setdefault("tie_word_embeddings", False)
        super().__init__(**kwargs)


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (x[j], x[j + D/2]) of (B, T, H, D) by minus the position's angles, (B, T, 1, D/2)."""
    left, right = x.chunk(2, dim=-1)
    return torch.cat([left * cos + right * sin, right * cos - left * sin], dim=-1)


class Attention(nn.Module):
    def __init__(self, config: FabRatingConfig, layer: int) -> None:
        super().__init__()
        self.layer, self.head_dim, self.qk_scale = layer, config.head_dim, config.qk_scale
        self.heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        kv_width, self.gate_channels = self.kv_heads * self.head_dim, config.gate_channels
        self.c_q = nn.Linear(config.hidden_size, self.heads * self.head_dim, bias=False)
        self.c_k = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.c_v = nn.Linear(config.hidden_size, kv_width, bias=False)
        self.c_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.ve_gate = (
            nn.Linear(self.gate_channels, self.kv_heads, bias=False) if layer in config.value_layers else None
        )

    def forward(
        self, x: Tensor, value: Tensor | None, rotary: tuple[Tensor, Tensor], mask: Tensor, kept: "Kept"
    ) -> Tensor:
        """x (B, T, C) -> (B, T, C). mask (B or 1, 1, T, S): what each token sees."""
        batch, length, _ = x.shape
        q = self.c_q(x).view(batch, length, self.heads, self.head_dim)
        k = self.c_k(x).view(batch, length, self.kv_heads, self.head_dim)
        v = self.c_v(x).view(batch, length, self.kv_heads, self.head_dim)
        if self.ve_gate is not None:
            gate = 3 * torch.sigmoid(self.ve_gate(x[..., : self.gate_channels]))
            v = v + gate.unsqueeze(-1) * value.view_as(v)
        q, k = norm(rotate(q, *rotary)) * self.qk_scale, norm(rotate(k, *rotary)) * self.qk_scale
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        k, v = kept.extend(self.layer, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=self.heads != self.kv_heads)
        return self.c_proj(y.transpose(1, 2).reshape(batch, length, -1))


class MLP(nn.Module):
    def __init__(self, config: FabRatingConfig) -> None:
        super().__init__()
        self.c_fc = nn.Linear(config.hidden_size, 4 * config.hidden_size, bias=False)
        self.c_proj = nn.Linear(4 * config.hidden_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.relu(self.c_fc(x)).square())


class Block(nn.Module):
    def __init__(self, config: FabRatingConfig, layer: int) -> None:
        super().__init__()
        self.attn = Attention(config, layer)
        self.mlp = MLP(config)

    def forward(
        self, x: Tensor, value: Tensor | None, rotary: tuple[Tensor, Tensor], mask: Tensor, kept: "Kept"
    ) -> Tensor:
        x = x + self.attn(norm(x), value, rotary, mask, kept)
        return x + self.mlp(norm(x))


class Kept:
    """The cache of one forward pass, or none.

    The smear needs the embedding of the token before. The cache keeps the embeddings (B, S, C) behind the values of the first
    layer, so that whatever reorders, repeats or crops the cache (beam search, assistants) does so to them, too.
    """

    def __init__(self, cache: Any, embeddings: Tensor, kv_heads: int, head_dim: int) -> None:
        self.cache, self.head_dim = cache, head_dim
        self.past = 0 if cache is None else cache.get_seq_length()
        batch, length, width = embeddings.shape
        self.last = embeddings.new_zeros(batch, 1, width)
        """The embedding of the token before the first new one, (B, 1, C); zeros where there is none."""
        if self.past:
            self.last = cache.layers[0].values[:, :, -1:, head_dim:].transpose(1, 2).reshape(batch, 1, width)
        self.embeddings = embeddings.view(batch, length, kv_heads, -1).transpose(1, 2)

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values (B, H, S, D) of all tokens, given those of the new ones (B, H, T, D)."""
        if self.cache is None:
            return k, v
        if layer > 0:
            return self.cache.update(k, v, layer)
        k, v = self.cache.update(k, torch.cat([v, self.embeddings], dim=-1), 0)
        return k, v[..., : self.head_dim]


class FabRatingForCausalLM(PreTrainedModel, GenerationMixin):
    """Token ids (B, T) in; logits (B, T, vocab_size) in fp32 out."""

    config_class = FabRatingConfig
    _no_split_modules: ClassVar[list[str]] = ["Block"]
    _supports_sdpa = True
    _keep_in_fp32_modules_strict: ClassVar[list[str]] = [
        "resid_lambdas",
        "x0_lambdas",
        "smear_lambda",
        "backout_lambda",
    ]

    def __init__(self, config: FabRatingConfig) -> None:
        super().__init__(config)
        width, kv_width = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config.vocab_size, width),
                "h": nn.ModuleList([Block(config, layer) for layer in range(config.num_hidden_layers)]),
            }
        )
        self.lm_head = nn.Linear(width, config.vocab_size, bias=False)
        self.resid_lambdas = nn.Parameter(torch.ones(config.num_hidden_layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(config.num_hidden_layers))
        self.smear_gate = nn.Linear(config.smear_channels, 1, bias=False)
        self.smear_lambda = nn.Parameter(torch.zeros(1))
        self.backout_lambda = nn.Parameter(torch.full((1,), 0.2))
        self.value_embeds = nn.ModuleDict(
            {str(layer): nn.Embedding(config.vocab_size, kv_width) for layer in config.value_layers}
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer["wte"]

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def rotary(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """cos and sin of position x frequency for positions (B or 1, T): (B or 1, T, 1, D/2) each, computed in fp32."""
        head_dim = self.config.head_dim
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
        angles = positions[..., None, None].float() * (1.0 / self.config.rotary_base**exponents)
        return angles.cos().to(dtype), angles.sin().to(dtype)

    def masks(self, past: int, length: int, present: Tensor | None, device: torch.device) -> dict[int, Tensor]:
        """For each window, what each new token sees (B or 1, 1, T, S): itself, and of that window the tokens that are present."""
        place = torch.arange(past + length, device=device)
        distance = place[past:, None] - place
        found = {}
        for window in set(self.config.windows):
            seen = ((distance >= 0) & (distance <= window))[None, None]
            found[window] = seen if present is None else seen & present[:, None, None, :] | (distance == 0)
        return found

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits of `input_ids` (B, T), which follow what the cache holds; with `labels` (B, T) the mean cross-entropy in nats.

        attention_mask (B, S): 0 for padding, which may stand on the left or on the right.
        """
        cache = past_key_values if cache is None else cache
        if cache is None and use_cache:
            cache = DynamicCache(config=self.config)
        length, config = input_ids.size(1), self.config
        x = norm(self.transformer["wte"](input_ids))
        kept = Kept(cache, x, config.num_key_value_heads, config.head_dim)
        present = None if attention_mask is None else attention_mask[:, : kept.past + length].bool()
        if position_ids is None and present is not None:
            position_ids = (present.long().cumsum(-1) - 1).clamp(min=0)[:, kept.past :]
        elif position_ids is None:
            position_ids = torch.arange(kept.past, kept.past + length, device=x.device)[None]
        rotary = self.rotary(position_ids, x.dtype)
        masks = self.masks(kept.past, length, present, x.device)

        x = x0 = middle = self.smear(x, kept, present)
        for layer, block in enumerate(self.transformer["h"]):
            x = self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * x0
            value = self.value_embeds[str(layer)](input_ids) if str(layer) in self.value_embeds else None
            x = block(x, value, rotary, masks[config.windows[layer]], kept)
            if layer == config.num_hidden_layers // 2:
                middle = x
        x = norm(x - self.backout_lambda.to(x.dtype) * middle)

        wanted = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = config.softcap * torch.tanh(self.lm_head(x[:, wanted]).float() / config.softcap)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=config.vocab_size, **kwargs)
        return CausalLMOutputWithPast(loss=loss, logits=logits, **{CACHE: cache})

    def smear(self, x: Tensor, kept: Kept, present: Tensor | None) -> Tensor:
        """Embeddings (B, T, C), each with a gated part of the one before it; padding is nothing before a token."""
        before = torch.cat([kept.last, x[:, :-1]], dim=1)
        if present is not None:
            before = before * F.pad(present, (1, 0))[:, kept.past : -1, None]
        gate = self.smear_lambda.to(x.dtype) * torch.sigmoid(self.smear_gate(x[..., : self.config.smear_channels]))
        return x + gate * before
