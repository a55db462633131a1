"""The exported tokenizer encodes as the pool's does, and what does not fit is refused."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiktoken
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.tokenizer import byte_letters, export_tokenizer, read_ranks
from tasks.errors import InputError

SPECIAL = len(contract.SPECIAL_TOKENS)


def encodings(tokenizer: Path, base: Path) -> tuple[Tokenizer, tiktoken.Encoding]:
    with (export_tokenizer(tokenizer, base) / "tokenizer.pkl").open("rb") as file:
        return Tokenizer.from_file(str(tokenizer / "tokenizer.json")), pickle.load(file)


def test_both_libraries_agree_on_every_text(tokenizer: Path, tmp_path: Path, texts: list[str]) -> None:
    ours, exported = encodings(tokenizer, tmp_path)
    assert len(texts) > 200
    for text in texts:
        assert exported.encode_ordinary(text) == ours.encode(text, add_special_tokens=False).ids
    assert exported.n_vocab == ours.get_vocab_size()
    assert exported.encode_single_token("<|bos|>") == ours.get_vocab_size() - SPECIAL


@pytest.fixture(scope="module")
def pair(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokenizer, tiktoken.Encoding]:
    return encodings(tokenizer, tmp_path_factory.mktemp("base"))


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60).filter(lambda text: "<|" not in text))
def test_both_libraries_agree_on_any_text(pair: tuple[Tokenizer, tiktoken.Encoding], text: str) -> None:
    ours, exported = pair
    assert exported.encode_ordinary(text) == ours.encode(text, add_special_tokens=False).ids


def test_token_bytes_are_the_lengths_that_tiktoken_decodes(tokenizer: Path, tmp_path: Path) -> None:
    _, exported = encodings(tokenizer, tmp_path)
    lengths = torch.load(contract.tokenizer_folder(tmp_path) / "token_bytes.pt", weights_only=True)
    assert lengths.dtype == torch.int32 and lengths.shape == (exported.n_vocab,)
    assert lengths[-SPECIAL:].tolist() == [0] * SPECIAL
    decoded = [len(exported.decode_single_token_bytes(token)) for token in range(exported.n_vocab - SPECIAL)]
    assert lengths[:-SPECIAL].tolist() == decoded


def test_byte_letters_cover_every_byte_once() -> None:
    assert sorted(byte_letters().values()) == list(range(256))


def changed(tokenizer: Path, folder: Path, change) -> Path:
    copy = folder / "changed"
    shutil.copytree(tokenizer, copy)
    description = json.loads((copy / "tokenizer.json").read_text())
    change(description)
    (copy / "tokenizer.json").write_text(json.dumps(description))
    return copy


def other_pattern(description: dict) -> None:
    description["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+"


def special_tokens_renamed(description: dict) -> None:
    description["added_tokens"][0]["content"] = "<|start|>"


def merges_reversed(description: dict) -> None:
    description["model"]["merges"].reverse()


def not_byte_level(description: dict) -> None:
    description["model"]["vocab"]["\u4e2d"] = len(description["model"]["vocab"])


def no_vocabulary(description: dict) -> None:
    del description["model"]["vocab"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_pattern, "another pattern"),
        (special_tokens_renamed, "special tokens"),
        (merges_reversed, "another order"),
        (not_byte_level, "not byte-level"),
        (no_vocabulary, "no tokenizer.json"),
    ],
)
def test_a_tokenizer_that_nanochat_would_read_differently_is_refused(
    tokenizer: Path, tmp_path: Path, change, words: str
) -> None:
    with pytest.raises(InputError, match=words):
        read_ranks(changed(tokenizer, tmp_path, change) / "tokenizer.json")


def test_lengths_of_another_tokenizer_are_refused(tokenizer: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tokenizer, copy)
    np.save(copy / "token_bytes.npy", np.load(copy / "token_bytes.npy") + 1)
    with pytest.raises(InputError, match="does not belong"):
        export_tokenizer(copy, tmp_path / "base")


def test_nanochat_itself_loads_it_and_encodes_alike(
    tokenizer: Path, tmp_path: Path, texts: list[str], upstream: Path, run_upstream: Callable[..., dict]
) -> None:
    export_tokenizer(tokenizer, tmp_path)
    (tmp_path / "texts.json").write_text(json.dumps(texts[:100]))
    theirs = run_upstream(
        upstream,
        tmp_path,
        """
        import json, sys
        from nanochat.tokenizer import get_tokenizer, get_token_bytes
        tokenizer = get_tokenizer()
        ids = tokenizer.encode(json.load(open(sys.argv[1])), prepend=tokenizer.get_bos_token_id())
        print(json.dumps({"ids": ids, "bytes": get_token_bytes().tolist(), "vocab": tokenizer.get_vocab_size()}))
        """,
        str(tmp_path / "texts.json"),
    )
    ours = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    bos = ours.token_to_id("<|bos|>")
    assert theirs["ids"] == [[bos, *ours.encode(text, add_special_tokens=False).ids] for text in texts[:100]]
    assert theirs["bytes"] == np.load(tokenizer / "token_bytes.npy").tolist()
    assert theirs["vocab"] == ours.get_vocab_size()
