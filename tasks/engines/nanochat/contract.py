"""What upstream nanochat's files are called, which commits are known to work, and the shapes of its model.

The only place that knows nanochat's names. Everything lies under one base directory (`NANOCHAT_BASE_DIR`):

    tokenizer/tokenizer.pkl, tokenizer/token_bytes.pt
    base_checkpoints/<tag>/model_000250.pt, meta_000250.json, optim_000250_rank0.pt
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.records.scaling import SMEAR_CHANNELS, VE_GATE_CHANNELS, ModelShape

REPOSITORY = "https://github.com/karpathy/nanochat"
TRAIN_SCRIPT = "scripts.base_train"
BASE_VARIABLE = "NANOCHAT_BASE_DIR"
DTYPE_VARIABLE = "NANOCHAT_DTYPE"
HOME_VARIABLE = "FABRATING_NANOCHAT_HOME"
"""The folder of the checkout, with its environment in `.venv`."""
PYTHON_VARIABLE = "FABRATING_NANOCHAT_PYTHON"
"""The interpreter of its environment, where that is not `.venv/bin/python` of the checkout."""
ALLOW_VARIABLE = "FABRATING_NANOCHAT_ALLOW_UNKNOWN"

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


def shape_from_meta(config: Mapping[str, Any], origin: str) -> ModelShape:
    """The model's shape in a checkpoint's metadata. Raises InputError when `origin` lacks or exceeds what is known."""
    try:
        shape = ModelShape(**config)
    except TypeError as error:
        raise InputError(
            f"{origin} holds a model configuration that FabRating does not know ({error}): use a nanochat commit "
            f"that it knows."
        ) from error
    numbers = (shape.sequence_len, shape.vocab_size, shape.n_layer, shape.n_head, shape.n_kv_head, shape.n_embd)
    sane = all(type(n) is int and 0 < n < 2**24 for n in numbers) and isinstance(shape.window_pattern, str)
    if not sane or shape.n_embd % shape.n_head or shape.n_head % shape.n_kv_head:
        raise InputError(f"{origin} holds an impossible model configuration {dict(config)}: use another checkpoint.")
    return shape


def state_shapes(shape: ModelShape) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the model's state dict."""
    width, key_width, vocab, layers = shape.n_embd, shape.kv_width, shape.padded_vocab_size, shape.n_layer
    tensors: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (vocab, width),
        "lm_head.weight": (vocab, width),
    }
    for layer in range(layers):
        block = f"transformer.h.{layer}"
        tensors[f"{block}.attn.c_q.weight"] = (width, width)
        tensors[f"{block}.attn.c_k.weight"] = (key_width, width)
        tensors[f"{block}.attn.c_v.weight"] = (key_width, width)
        tensors[f"{block}.attn.c_proj.weight"] = (width, width)
        tensors[f"{block}.mlp.c_fc.weight"] = (4 * width, width)
        tensors[f"{block}.mlp.c_proj.weight"] = (width, 4 * width)
        if shape.has_value_embedding(layer):
            tensors[f"{block}.attn.ve_gate.weight"] = (shape.n_kv_head, VE_GATE_CHANNELS)
            tensors[f"value_embeds.{layer}.weight"] = (vocab, key_width)
    tensors |= {"resid_lambdas": (layers,), "x0_lambdas": (layers,)}
    return tensors | {"smear_gate.weight": (1, SMEAR_CHANNELS), "smear_lambda": (1,), "backout_lambda": (1,)}


def checkpoint_folder(base: Path, tag: str) -> Path:
    """Where the checkpoints of the model `tag` lie."""
    return base / "base_checkpoints" / tag


def model_file(step: int) -> str:
    return f"model_{step:06d}.pt"


def meta_file(step: int) -> str:
    return f"meta_{step:06d}.json"


TOKENIZER_FILE = "tokenizer.pkl"


def tokenizer_folder(base: Path) -> Path:
    """Where the tokenizer (TOKENIZER_FILE) and its token lengths (`token_bytes.pt`) lie."""
    return base / "tokenizer"
