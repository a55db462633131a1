"""What transformers loads from an exported folder is our model and our tokenizer, with a cache that changes nothing."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.engines.builtin.model import GPT
from tasks.engines.export.hub import CONFIG, hub_config, hub_weights, save_tensors, write_hub
from tasks.engines.trained import Trained, open_trained
from tasks.records.scaling import ModelShape
from tasks.store.root import Root
from tests.small import random_model
from tests.trained import TinyRoot

transformers = pytest.importorskip("transformers")

LONG = 256  # an S window is 128 there
SHAPES = {
    "one layer": ModelShape.of_depth(1, LONG, "L", 300),
    "two layers, both windows": ModelShape.of_depth(2, LONG, "SL", 320),
    "three layers, a smaller vocabulary than its padding": ModelShape.of_depth(3, LONG, "SSSL", 301),
    "five layers": ModelShape.of_depth(5, LONG, "SSL", 300),
    "fewer key heads": replace(ModelShape.of_depth(3, LONG, "S", 300), n_kv_head=1),
}


def loaded(folder: Path, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, **options).eval()


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[GPT, Any]]:
    """Makes ours and what transformers loads of it, by the name of a shape."""
    made: dict[str, tuple[GPT, Any]] = {}

    def make(name: str) -> tuple[GPT, Any]:
        if name not in made:
            model, folder = random_model(SHAPES[name]), tmp_path_factory.mktemp("exported")
            save_tensors(hub_weights(model.state_dict(), model.config), folder / "model.safetensors")
            (folder / CONFIG).write_text(json.dumps(hub_config(model.config)))
            source = Path(write_hub.__code__.co_filename).with_name("modeling_fabrating.py")
            (folder / source.name).write_bytes(source.read_bytes())
            made[name] = model, loaded(folder)
        return made[name]

    return make


def tokens_of(model: GPT, batch: int, length: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.randint(model.config.vocab_size, (batch, length), generator=generator)


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SHAPES)
@torch.inference_mode()
def test_logits_are_ours(exported: Callable[[str], tuple[GPT, Any]], name: str) -> None:
    ours, theirs = exported(name)
    tokens = tokens_of(ours, 2, LONG)
    close(theirs(tokens).logits, ours(tokens))
    assert theirs.dtype == torch.float32


@pytest.mark.parametrize("name", ["two layers, both windows", "five layers", "fewer key heads"])
@torch.inference_mode()
def test_the_cache_agrees_with_the_full_forward(exported: Callable[[str], tuple[GPT, Any]], name: str) -> None:
    """Read in pieces that begin and end on either side of a window, one token at a time among them."""
    ours, theirs = exported(name)
    tokens = tokens_of(ours, 2, 200)
    whole = ours(tokens)
    found, cache = [], None
    for piece in tokens.split([120, 1, 1, 1, 30, 1, 46], dim=1):
        done = theirs(piece, cache=cache, use_cache=True)
        found.append(done.logits)
        cache = done.cache
    close(torch.cat(found, dim=1), whole)


@torch.inference_mode()
def test_padding_on_either_side_changes_nothing(exported: Callable[[str], tuple[GPT, Any]]) -> None:
    ours, theirs = exported("two layers, both windows")
    tokens = tokens_of(ours, 1, 150)
    whole = ours(tokens)
    beside = torch.zeros(1, 9, dtype=torch.long)
    for padded, mask, text in (
        (torch.cat([beside, tokens], 1), [0] * 9 + [1] * 150, slice(9, None)),
        (torch.cat([tokens, beside], 1), [1] * 150 + [0] * 9, slice(150)),
    ):
        close(theirs(padded, attention_mask=torch.tensor([mask])).logits[:, text], whole)
    left = torch.cat([beside, tokens], 1)
    first = theirs(left[:, :100], attention_mask=torch.tensor([[0] * 9 + [1] * 91]), use_cache=True)
    rest = theirs(left[:, 100:], attention_mask=torch.tensor([[0] * 9 + [1] * 150]), cache=first.cache)
    close(rest.logits, whole[:, 91:])


@torch.inference_mode()
def test_generation_is_that_of_our_model(exported: Callable[[str], tuple[GPT, Any]]) -> None:
    """Greedily, with a prompt padded on the left beside it; beams reorder the cache."""
    ours, theirs = exported("three layers, a smaller vocabulary than its padding")
    tokens = tokens_of(ours, 2, 20)
    padded, mask = tokens.clone(), torch.ones_like(tokens)
    padded[1, :5], mask[1, :5] = 0, 0
    found = theirs.generate(padded, attention_mask=mask, max_new_tokens=12, do_sample=False)
    for row, text in ((found[0], tokens[:1]), (found[1, 5:], tokens[1:, 5:])):
        for _ in range(12):
            text = torch.cat([text, ours(text)[:, -1:].argmax(-1)], 1)
        assert row.tolist() == text[0].tolist()
    options = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    with_cache = theirs.generate(tokens, **options)
    assert with_cache.tolist() == theirs.generate(tokens, use_cache=False, **options).tolist()


@torch.inference_mode()
def test_bf16_is_computed_as_a_gpu_trains(exported: Callable[[str], tuple[GPT, Any]]) -> None:
    ours, theirs = exported("two layers, both windows")
    model = GPT(ours.config, torch.bfloat16)
    model.load_state_dict(ours.state_dict())
    low = loaded(Path(theirs.name_or_path), dtype=torch.bfloat16)
    tokens = tokens_of(ours, 1, 200)
    assert low.lm_head.weight.dtype == torch.bfloat16 and low.resid_lambdas.dtype == torch.float32
    torch.testing.assert_close(low(tokens).logits, model(tokens), rtol=0, atol=0.05)


@torch.inference_mode()
def test_labels_give_our_loss(exported: Callable[[str], tuple[GPT, Any]]) -> None:
    ours, theirs = exported("one layer")
    tokens = tokens_of(ours, 2, 50)
    close(theirs(tokens, labels=tokens).loss, ours(tokens[:, :-1], tokens[:, 1:]))


def test_a_trained_run_is_whole_in_the_folder(tiny: TinyRoot, tmp_path: Path) -> None:
    trained, _ = open_trained(Root(tiny.folder), tiny.runs[0])
    write_hub(trained, tmp_path)
    theirs, ours = loaded(tmp_path), tiny.model(trained)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path, trust_remote_code=True)
    for text in tiny.texts:
        ids = trained_ids(trained, text)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids
        assert tokenizer(text)["input_ids"] == [tokenizer.bos_token_id, *ids]
        assert tokenizer.decode(ids) == text
        with torch.inference_mode():
            tokens = torch.tensor([[tokenizer.bos_token_id, *ids][:64]])
            close(theirs(tokens).logits, ours(tokens))
    prompt = tokenizer(["The water cycle", "A"], return_tensors="pt", padding=True, padding_side="left")
    written = theirs.generate(**prompt, max_new_tokens=5, do_sample=True)
    assert written.shape[0] == 2 and tokenizer.bos_token_id == theirs.generation_config.eos_token_id


def trained_ids(trained: Trained, text: str) -> list[int]:
    from tasks.tokens.tokenizer import load_tokenizer

    return load_tokenizer(trained.tokenizer.path).encode(text)
