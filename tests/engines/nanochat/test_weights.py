"""Files of weights are read as they were written; anything else than the model's tensors is refused."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.weights import read_weights, write_weights
from tasks.errors import DamagedError, InputError
from tasks.records.scaling import ModelShape

CONFIG = ModelShape.of_depth(2, 64, "SL", 512)


def random_state(config: ModelShape, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: 0.1 * torch.randn(shape, generator=generator) for name, shape in contract.state_shapes(config).items()
    }


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    state = random_state(CONFIG)
    state["transformer.wte.weight"] = state["transformer.wte.weight"].bfloat16()
    write_weights(tmp_path, 7, state, CONFIG, {"val_bpb": 1.5})
    again, meta = read_weights(tmp_path, 7)
    assert meta["val_bpb"] == 1.5 and meta["step"] == 7 and meta["model_config"] == asdict(CONFIG)
    assert again.keys() == state.keys()
    for name, tensor in state.items():
        assert again[name].dtype == tensor.dtype and torch.equal(again[name], tensor)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_prefix_of_a_compiled_model_is_dropped(tmp_path: Path) -> None:
    state = random_state(CONFIG)
    write_weights(tmp_path, 1, state, CONFIG, {})
    torch.save({f"_orig_mod.{name}": tensor for name, tensor in state.items()}, tmp_path / contract.model_file(1))
    assert read_weights(tmp_path, 1)[0].keys() == state.keys()


class Evil:
    """What a hostile pickle does: call something when loaded."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.touch, (self.marker,))


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    write_weights(tmp_path, 1, random_state(CONFIG), CONFIG, {})
    marker = tmp_path / "executed"
    torch.save({"weights": Evil(marker)}, tmp_path / contract.model_file(1))
    with pytest.raises(DamagedError, match="plain tensors"):
        read_weights(tmp_path, 1)
    (tmp_path / contract.model_file(1)).write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(DamagedError, match="plain tensors"):
        read_weights(tmp_path, 1)
    assert not marker.exists()


@pytest.mark.parametrize("keep", [0, 1, 1_000, 100_000])
def test_a_truncated_file_is_named(tmp_path: Path, keep: int) -> None:
    write_weights(tmp_path, 1, random_state(CONFIG), CONFIG, {})
    path = tmp_path / contract.model_file(1)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DamagedError, match=r"model_000001\.pt"):
        read_weights(tmp_path, 1)


def without_smear(state: dict) -> None:
    del state["smear_gate.weight"]


def with_another(state: dict) -> None:
    state["transformer.h.0.attn.bias"] = torch.zeros(1)


def of_another_shape(state: dict) -> None:
    state["transformer.h.1.attn.ve_gate.weight"] = torch.zeros(1, 32)


def of_whole_numbers(state: dict) -> None:
    state["lm_head.weight"] = torch.zeros(contract.state_shapes(CONFIG)["lm_head.weight"], dtype=torch.int64)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_smear, "smear_gate.weight is missing"),
        (with_another, "attn.bias is which the model does not have"),
        (of_another_shape, r"ve_gate.weight is torch.float32 \(1, 32\)"),
        (of_whole_numbers, "lm_head.weight is torch.int64"),
    ],
)
def test_tensors_of_another_model_are_named(tmp_path: Path, change, words: str) -> None:
    write_weights(tmp_path, 1, random_state(CONFIG), CONFIG, {})
    state = random_state(CONFIG)
    change(state)
    torch.save(state, tmp_path / contract.model_file(1))
    with pytest.raises(InputError, match=words):
        read_weights(tmp_path, 1)
    with pytest.raises(InputError, match=words):
        write_weights(tmp_path / "other", 1, state, CONFIG, {})


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({}, InputError),
        ({**asdict(CONFIG), "rope": 1}, InputError),
        ({**asdict(CONFIG), "n_layer": 10**9}, InputError),
        ({**asdict(CONFIG), "n_embd": 100, "n_head": 3}, InputError),
        (None, InputError),
    ],
)
def test_an_impossible_configuration_is_refused(tmp_path: Path, config, error) -> None:
    write_weights(tmp_path, 1, random_state(CONFIG), CONFIG, {})
    (tmp_path / contract.meta_file(1)).write_text(json.dumps({"model_config": config}))
    with pytest.raises(error, match=r"meta_000001\.json"):
        read_weights(tmp_path, 1)


def test_metadata_that_is_no_json_is_named(tmp_path: Path) -> None:
    write_weights(tmp_path, 1, random_state(CONFIG), CONFIG, {})
    (tmp_path / contract.meta_file(1)).write_text("{")
    with pytest.raises(DamagedError, match=r"meta_000001\.json"):
        read_weights(tmp_path, 1)
