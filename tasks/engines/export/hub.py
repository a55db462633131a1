"""The files of a Hugging Face model: configuration, weights, modeling code, tokenizer and how to generate.

The vocabulary's padding is cut off: its rows are never looked up, and its logits count for nothing. Weights are fp32, so that
no bit is lost; load them with `dtype=torch.bfloat16` to compute as a GPU trained them.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, processors

from tasks.engines.builtin.model import QK_SCALE, ROTARY_BASE, SOFTCAP
from tasks.engines.trained import Trained
from tasks.errors import InputError
from tasks.records.layout import TOKENIZER
from tasks.records.scaling import SMEAR_CHANNELS, VE_GATE_CHANNELS, ModelShape

MODELING = Path(__file__).with_name("modeling_fabrating.py")
CONFIG, WEIGHTS, GENERATION, TOKENIZER_CONFIG = (
    "config.json",
    "model.safetensors",
    "generation_config.json",
    "tokenizer_config.json",
)
CLASS = "FabRatingForCausalLM"
TOKEN_ROWS = ("transformer.wte.", "lm_head.", "value_embeds.")
"""Tensors with a row for each token."""


def hub_config(shape: ModelShape) -> dict[str, Any]:
    """`config.json`: the fields of `modeling_fabrating.FabRatingConfig`, and where the code is."""
    code = MODELING.stem
    return {
        "architectures": [CLASS],
        "auto_map": {"AutoConfig": f"{code}.FabRatingConfig", "AutoModelForCausalLM": f"{code}.{CLASS}"},
        "model_type": "fabrating",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.n_embd,
        "num_hidden_layers": shape.n_layer,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_kv_head,
        "max_position_embeddings": shape.sequence_len,
        "windows": shape.windows,
        "value_layers": [layer for layer in range(shape.n_layer) if shape.has_value_embedding(layer)],
        "smear_channels": SMEAR_CHANNELS,
        "gate_channels": VE_GATE_CHANNELS,
        "rotary_base": ROTARY_BASE,
        "qk_scale": QK_SCALE,
        "softcap": SOFTCAP,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def hub_weights(state: Mapping[str, torch.Tensor], shape: ModelShape) -> dict[str, torch.Tensor]:
    """The weights by the same names in fp32, without the rows that pad the vocabulary."""
    return {
        name: tensor[: shape.vocab_size].float() if name.startswith(TOKEN_ROWS) else tensor.float()
        for name, tensor in state.items()
    }


def save_tensors(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file. Raises InputError where the package is missing."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise InputError("The package safetensors is not installed: pip install 'fabrating[export]'.") from error
    path.touch()
    mode = path.stat().st_mode
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, metadata={"format": "pt"})
    path.chmod(mode)  # it leaves a file that its owner alone can read


def write_hub(trained: Trained, folder: Path) -> None:
    """Write everything but the model card into a folder."""
    shape = trained.shape
    save_tensors(hub_weights(trained.state(), shape), folder / WEIGHTS)
    write_json(folder / CONFIG, hub_config(shape))
    shutil.copyfile(MODELING, folder / MODELING.name)
    bos, name = _write_tokenizer(trained.tokenizer.path / TOKENIZER, folder / TOKENIZER)
    # A document begins with BOS, so a model that writes one has ended its document.
    write_json(folder / GENERATION, {"bos_token_id": bos, "eos_token_id": bos, "pad_token_id": bos})
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name,
        "eos_token": name,
        "pad_token": name,
        "model_max_length": shape.sequence_len,
        # The name of a special token inside a text is text, as it was in training.
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
    }
    write_json(folder / TOKENIZER_CONFIG, settings)


def _write_tokenizer(source: Path, target: Path) -> tuple[int, str]:
    """The tokenizer with BOS put before a text unless `add_special_tokens=False`, as every document was trained on. Returns BOS."""
    tokenizer = Tokenizer.from_file(str(source))
    special = {token.content: number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    name, bos = min(special.items(), key=lambda item: item[1])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{name} $A", pair=f"{name} $A {name} $B", special_tokens=[(name, bos)]
    )
    tokenizer.save(str(target))
    return bos, name


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
