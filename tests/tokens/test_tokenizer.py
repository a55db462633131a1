"""Training and loading a tokenizer: its shape, its determinism, and what it is used for."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Reference

from tasks.errors import InputError
from tasks.store.root import Root
from tasks.tokens.tokenizer import BOS, SPECIAL_TOKENS, load_tokenizer
from tasks.tokens.train import train_reference, train_tokenizer
from tests.tokens.conftest import POOL, make_documents, write_pool


def test_bytes_first_merges_then_special_tokens_last(tokenizer, pool_folder):
    assert tokenizer.vocab_size == 480
    assert list(tokenizer.special_tokens) == list(SPECIAL_TOKENS)
    assert list(tokenizer.special_tokens.values()) == list(range(471, 480))
    assert tokenizer.bos == 471
    ranks = tokenizer.ranks()
    assert sorted(ranks.values()) == list(range(471))
    assert {token for token, rank in ranks.items() if rank < 256} == {bytes([byte]) for byte in range(256)}
    facts = Root(pool_folder).open(f"pools/{POOL}/tokenizer").facts
    assert facts["vocab_size"] == 480
    assert facts["special_tokens"] == tokenizer.special_tokens


def test_numbers_fall_into_groups_of_two():
    reference = train_reference(iter([["123456 123456 123456 " * 50]]), 256 + 9 + 3)
    pieces = [reference.id_to_token(token) for token in reference.encode("123456").ids]
    assert pieces == ["12", "34", "56"]


def test_token_bytes_add_up_to_the_text(tokenizer, pool_folder):
    saved = np.load(pool_folder / "pools" / POOL / "tokenizer" / "token_bytes.npy")
    assert saved.dtype == np.int32
    assert np.array_equal(saved, tokenizer.token_bytes())
    assert (saved[471:] == 0).all()
    for text in make_documents(50, seed=3):
        assert saved[tokenizer.encode(text)].sum() == len(text.encode())


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_unpaired_surrogates_become_replacement_characters(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud83db \udc00")) == "a�b �"
    assert tokenizer.decode(tokenizer.encode("\ud83d\ude00")) == "😀"


def test_names_of_special_tokens_in_a_text_are_text(tokenizer):
    ids = tokenizer.encode(f"{BOS} and <|output_end|>")
    assert max(ids) < tokenizer.bos
    assert tokenizer.decode(ids) == f"{BOS} and <|output_end|>"
    assert tokenizer.decode([tokenizer.bos]) == BOS


def test_the_file_is_enough_for_the_plain_library(tokenizer):
    plain = Reference.from_file(str(tokenizer.path))
    text = "12 engineers count 2026 tokens"
    assert plain.encode(text).ids == tokenizer.encode(text)
    assert plain.decode(plain.encode(text).ids) == text
    assert plain.token_to_id(BOS) == tokenizer.bos


def test_documents_are_cut_and_one_sample_gives_one_tokenizer(tmp_path):
    documents = make_documents(300, seed=5)
    tail = "zqzqzqzq" * 5_000
    long = "x" * 10_000 + tail
    made = []
    for name, sample in (("a", [*documents, long]), ("b", [*documents, "x" * 10_000])):
        root = Root(tmp_path / name)
        write_pool(root, POOL, sample, ["held out"])
        made.append((train_tokenizer(root, POOL, 400).path / "tokenizer.json").read_bytes())
    assert made[0] == made[1]


def test_training_does_not_depend_on_the_process(tmp_path):
    root = Root(tmp_path)
    write_pool(root, POOL, make_documents(300, seed=6), ["held out"])
    script = (
        "import sys, shutil; from tasks.store.root import Root; from tasks.tokens.train import train_tokenizer\n"
        f"a = train_tokenizer(Root({str(tmp_path)!r}), {POOL!r}, 420)\n"
        "sys.stdout.write((a.path / 'tokenizer.json').read_text()); shutil.rmtree(a.path)"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "RAYON_NUM_THREADS": threads, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "3")
    }
    assert len(outputs) == 1
    assert json.loads(outputs.pop())["model"]["type"] == "BPE"


@pytest.mark.parametrize("vocab_size", [264, 65_537])
def test_a_size_out_of_range_is_refused(root, vocab_size):
    with pytest.raises(InputError, match=f"vocab_size is {vocab_size}"):
        train_tokenizer(root, POOL, vocab_size)


def test_a_sample_too_small_for_the_size_is_refused(tmp_path):
    root = Root(tmp_path)
    write_pool(root, POOL, ["too little text"], ["held out"])
    with pytest.raises(InputError, match="yields only"):
        train_tokenizer(root, POOL, 1_000)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no tokenizer"):
        load_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InputError, match=r"not a tokenizer\.json"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_our_special_tokens_is_refused(tmp_path, tokenizer):
    definition = json.loads(tokenizer.path.read_text())
    definition["added_tokens"] = definition["added_tokens"][1:]
    (tmp_path / "tokenizer.json").write_text(json.dumps(definition))
    with pytest.raises(InputError, match=r"lacks the special token <\|bos\|>"):
        load_tokenizer(tmp_path)
