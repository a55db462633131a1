"""Reading and writing nanochat's model checkpoints: `model_*.pt` (a state dict) and `meta_*.json`.

Files from outside are read with `weights_only=True` and checked name by name and shape by shape before use.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tasks.engines.builtin.checkpoint import load_tensors
from tasks.engines.nanochat import contract
from tasks.engines.nanochat.tokenizer import write_whole
from tasks.errors import DamagedError, InputError
from tasks.records.scaling import ModelShape

FLOATING = (torch.float32, torch.bfloat16, torch.float16)
COMPILED_PREFIX = "_orig_mod."


def read_weights(folder: Path, step: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """State dict (on the CPU, mapped from the file) and metadata of nanochat's checkpoint of `step` in `folder`.

    Raises InputError when there is none or its model is not the one FabRating knows, DamagedError when a file cannot be
    read.
    """
    model_path, meta_path = folder / contract.model_file(step), folder / contract.meta_file(step)
    if not model_path.is_file() or not meta_path.is_file():
        raise InputError(
            f"{folder} holds no complete nanochat checkpoint of step {step}: check the folder and the step."
        )
    try:
        meta = json.loads(meta_path.read_bytes())
        config = meta["model_config"]
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedError(f"{meta_path} is no checkpoint metadata ({error!r}): use an earlier checkpoint.") from error
    parsed = contract.shape_from_meta(config, str(meta_path))
    return check_weights(load_tensors(model_path), parsed, str(model_path)), meta


def check_weights(state: Any, config: ModelShape, origin: str) -> dict[str, torch.Tensor]:
    """The state dict with plain names, when its tensors are exactly those of a model of `config`.

    Raises InputError naming the first tensor that is missing, unknown, of another shape or no floating point.
    """
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise InputError(f"{origin} holds no state dict: check that it is a nanochat model file.")
    plain = {name.removeprefix(COMPILED_PREFIX): tensor for name, tensor in state.items()}
    shapes = contract.state_shapes(config)
    for name in sorted(shapes.keys() | plain.keys()):
        wanted, tensor = shapes.get(name), plain.get(name)
        if wanted is None or not isinstance(tensor, torch.Tensor):
            problem = "which the model does not have" if wanted is None else "missing"
            raise InputError(f"{origin}: the tensor {name} is {problem}: this is another version of nanochat's model.")
        if tuple(tensor.shape) != wanted or tensor.dtype not in FLOATING:
            raise InputError(
                f"{origin}: the tensor {name} is {tensor.dtype} {tuple(tensor.shape)} where the model has {wanted}: "
                "this is another version of nanochat's model."
            )
    return plain


def write_weights(
    folder: Path, step: int, state: Mapping[str, torch.Tensor], config: ModelShape, meta: Mapping[str, Any]
) -> None:
    """Write a checkpoint that nanochat's checkpoint manager loads; the metadata, written last, makes it whole.

    `meta` adds to or replaces entries such as `val_bpb` or `user_config`. Raises InputError when `state` does not fit.
    """
    plain = check_weights(state, config, "The checkpoint")
    folder.mkdir(parents=True, exist_ok=True)
    description = {
        "step": step,
        "val_bpb": None,
        "model_config": asdict(config),
        "user_config": {},
        "max_seq_len": config.sequence_len,
        **meta,
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in plain.items()}
    write_whole(folder / contract.model_file(step), lambda path: torch.save(tensors, path))
    text = json.dumps(description, indent=2)
    write_whole(folder / contract.meta_file(step), lambda path: path.write_text(text))
