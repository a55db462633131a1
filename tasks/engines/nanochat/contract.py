"""What upstream nanochat's files are called, which commits are known to work, and the shapes of its model.

The only place that knows nanochat's names. Everything lies under one base directory (`NANOCHAT_BASE_DIR`):

    tokenizer/tokenizer.pkl, tokenizer/token_bytes.pt
    base_checkpoints/<tag>/model_000250.pt, meta_000250.json, optim_000250_rank0.pt
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError

REPOSITORY = "https://github.com/karpathy/nanochat"
TRAIN_SCRIPT = "scripts.base_train"
BASE_VARIABLE = "NANOCHAT_BASE_DIR"
DTYPE_VARIABLE = "NANOCHAT_DTYPE"
HOME_VARIABLE = "FABRATING_NANOCHAT_HOME"
"""The folder of the checkout, with its environment in `.venv`."""
PYTHON_VARIABLE = "FABRATING_NANOCHAT_PYTHON"
"""The interpreter of its environment, where that is not `.venv/bin/python` of the checkout."""
ALLOW_VARIABLE = "FABRATING_NANOCHAT_ALLOW_UNKNOWN"

HEAD_WIDTH = 128
WIDTH_PER_LAYER = 64
VOCAB_MULTIPLE = 64
SMEAR_CHANNELS = 24
GATE_CHANNELS = 12
REFERENCE_DEPTH = 12
REFERENCE_BATCH_TOKENS = 2**19

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = (
    "<|bos|>",
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


@dataclass(frozen=True)
class Upstream:
    """A commit that was run with the overlay. `code`: the fingerprint of the files that it hooks (see `check`)."""

    commit: str
    date: str
    code: str
    dtype_variable: bool
    """Whether NANOCHAT_DTYPE sets the precision (else bf16 on a GPU, by autocast)."""
    fp8: bool
    """Whether base_train has `--fp8`."""


PINNED = Upstream("92d63d4e8bb4df75c3b71618f31ddde2378b2bcd", "2026-07-03", "bf6425fcf6", True, True)
KNOWN = (
    PINNED,
    Upstream("4a6e47b0c68aa062c62fa859aed2e8dd0d59d684", "2026-02-17", "5c8621ed51", False, True),
    Upstream("1ddaad1c1c37f3553a59f556bc757c4aea585bef", "2026-01-31", "60cb0d5a0d", False, False),
)

OPTIONS = (
    "--run",
    "--device-type",
    "--depth",
    "--max-seq-len",
    "--window-pattern",
    "--num-iterations",
    "--target-param-data-ratio",
    "--device-batch-size",
    "--total-batch-size",
    "--resume-from-step",
    "--eval-every",
    "--eval-tokens",
    "--core-metric-every",
    "--sample-every",
    "--save-every",
    "--model-tag",
)
"""What the launcher passes to base_train, but for `--fp8`."""


@dataclass(frozen=True)
class ModelConfig:
    """nanochat's GPTConfig, by its own field names."""

    sequence_len: int
    vocab_size: int
    n_layer: int
    n_head: int
    n_kv_head: int
    n_embd: int
    window_pattern: str

    @classmethod
    def of_depth(cls, depth: int, vocab_size: int, sequence_len: int, window_pattern: str) -> "ModelConfig":
        """The configuration that nanochat derives from its one dial."""
        width = -(-depth * WIDTH_PER_LAYER // HEAD_WIDTH) * HEAD_WIDTH
        heads = width // HEAD_WIDTH
        return cls(sequence_len, vocab_size, depth, heads, heads, width, window_pattern)

    @classmethod
    def from_meta(cls, config: Mapping[str, Any], origin: str) -> "ModelConfig":
        """The configuration in a checkpoint's metadata. Raises InputError when `origin` lacks or exceeds what is known."""
        try:
            parsed = cls(**config)
        except TypeError as error:
            raise InputError(
                f"{origin} holds a model configuration that FabRating does not know ({error}): use a nanochat commit "
                f"that it knows."
            ) from error
        numbers = (
            parsed.sequence_len,
            parsed.vocab_size,
            parsed.n_layer,
            parsed.n_head,
            parsed.n_kv_head,
            parsed.n_embd,
        )
        sane = all(type(n) is int and 0 < n < 2**24 for n in numbers) and isinstance(parsed.window_pattern, str)
        if not sane or parsed.n_embd % parsed.n_head or parsed.n_head % parsed.n_kv_head:
            raise InputError(
                f"{origin} holds an impossible model configuration {dict(config)}: take another checkpoint."
            )
        return parsed

    @property
    def padded_vocab(self) -> int:
        return -(-self.vocab_size // VOCAB_MULTIPLE) * VOCAB_MULTIPLE

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor of the model's state."""
        width, vocab, layers = self.n_embd, self.padded_vocab, self.n_layer
        key_width = self.n_kv_head * (width // self.n_head)
        shapes: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (vocab, width),
            "lm_head.weight": (vocab, width),
        }
        for layer in range(layers):
            block = f"transformer.h.{layer}"
            shapes[f"{block}.attn.c_q.weight"] = (width, width)
            shapes[f"{block}.attn.c_k.weight"] = (key_width, width)
            shapes[f"{block}.attn.c_v.weight"] = (key_width, width)
            shapes[f"{block}.attn.c_proj.weight"] = (width, width)
            shapes[f"{block}.mlp.c_fc.weight"] = (4 * width, width)
            shapes[f"{block}.mlp.c_proj.weight"] = (width, 4 * width)
            if has_value_embedding(layer, layers):
                shapes[f"{block}.attn.ve_gate.weight"] = (self.n_kv_head, GATE_CHANNELS)
                shapes[f"value_embeds.{layer}.weight"] = (vocab, key_width)
        shapes |= {"resid_lambdas": (layers,), "x0_lambdas": (layers,)}
        return shapes | {"smear_gate.weight": (1, SMEAR_CHANNELS), "smear_lambda": (1,), "backout_lambda": (1,)}

    def parameters(self) -> int:
        """All parameters."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    def scaling_parameters(self) -> int:
        """Parameters that nanochat's scaling rules count: everything inside the blocks, and lm_head."""
        shapes = self.shapes()
        counted = [s for name, s in shapes.items() if name.startswith("transformer.h.") or name == "lm_head.weight"]
        return sum(rows * columns for rows, columns in counted)


def has_value_embedding(layer: int, layers: int) -> bool:
    """Every second layer mixes token embeddings into its values, the last one always."""
    return layer % 2 == (layers - 1) % 2


def checkpoint_folder(base: Path, tag: str) -> Path:
    """Where the checkpoints of the model `tag` lie."""
    return base / "base_checkpoints" / tag


def model_file(step: int) -> str:
    return f"model_{step:06d}.pt"


def meta_file(step: int) -> str:
    return f"meta_{step:06d}.json"


def tokenizer_folder(base: Path) -> Path:
    """Where the tokenizer (`tokenizer.pkl`) and its token lengths (`token_bytes.pt`) lie."""
    return base / "tokenizer"
