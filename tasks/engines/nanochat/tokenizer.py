"""The pool's tokenizer in nanochat's format: a pickled `tiktoken.Encoding` and the bytes of each token.

The pickle is written by us from `tokenizer.json`; a pickle from outside is never loaded.
"""

import json
import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import tiktoken
import torch

from tasks.engines.nanochat import contract
from tasks.errors import InputError
from tasks.records.layout import TOKEN_BYTES, TOKENIZER
from tasks.store.artifact import sync

ENCODING_NAME = "rustbpe"


def export_tokenizer(tokenizer: Path, base: Path) -> Path:
    """Write `tokenizer.json` and `token_bytes.npy` of the folder `tokenizer` below nanochat's base directory.

    Returns the folder written. Raises InputError when the tokenizer is not one that nanochat can use: byte-level BPE with
    nanochat's pattern, its special tokens last.
    """
    ranks, special = read_ranks(tokenizer / TOKENIZER)
    encoding = tiktoken.Encoding(
        name=ENCODING_NAME, pat_str=contract.PATTERN, mergeable_ranks=ranks, special_tokens=special
    )
    lengths = np.load(tokenizer / TOKEN_BYTES, allow_pickle=False)
    expected = np.array([len(token) for token in sorted(ranks, key=ranks.__getitem__)] + [0] * len(special), np.int32)
    if not np.array_equal(lengths, expected):
        raise InputError(
            f"{tokenizer / 'token_bytes.npy'} does not belong to the tokenizer.json beside it: rebuild the tokenizer."
        )
    folder = contract.tokenizer_folder(base)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / contract.TOKENIZER_FILE, lambda path: path.write_bytes(pickle.dumps(encoding)))
    write_whole(folder / "token_bytes.pt", lambda path: torch.save(torch.from_numpy(lengths.astype(np.int32)), path))
    return folder


def read_ranks(path: Path) -> tuple[dict[bytes, int], dict[str, int]]:
    """Bytes -> id of the ordinary tokens, name -> id of the special ones, from a `tokenizers` JSON file.

    Raises InputError when tiktoken would not encode as this tokenizer does: another pattern, a merge order that is not
    the order of ids, bytes without a token, special tokens that are not nanochat's, last and in its order.
    """
    try:
        description = json.loads(path.read_bytes())
        vocabulary = description["model"]["vocab"]
        merges = description["model"]["merges"]
        special = {token["content"]: token["id"] for token in description["added_tokens"]}
        pattern = _pattern(description["pre_tokenizer"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is no tokenizer.json of the tokenizers library ({error!r}): rebuild it.") from error
    if pattern != contract.PATTERN:
        raise InputError(f"{path} splits text by {pattern!r}, nanochat by another pattern: train it by FabRating.")
    letters = byte_letters()
    ordinary = {token: number for token, number in vocabulary.items() if token not in special}
    try:
        ranks = {bytes(letters[letter] for letter in token): number for token, number in ordinary.items()}
    except KeyError as error:
        raise InputError(f"{path} is not byte-level (it has a token with {error}): train it by FabRating.") from error
    first = len(ranks)
    wanted = {name: first + position for position, name in enumerate(contract.SPECIAL_TOKENS)}
    if special != wanted or sorted(ranks.values()) != list(range(first)):
        raise InputError(f"{path} does not have nanochat's nine special tokens last: train it by FabRating.")
    pairs = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
    if [vocabulary[left + right] for left, right in pairs] != list(range(256, first)):
        raise InputError(f"{path} has merges in another order than its ids: train it by FabRating.")
    return ranks, special


def _pattern(pre_tokenizer: dict) -> str | None:
    """The regular expression of the Split step, wherever it stands in the chain."""
    steps = pre_tokenizer.get("pretokenizers", [pre_tokenizer])
    return next((step["pattern"].get("Regex") for step in steps if step["type"] == "Split"), None)


@cache
def byte_letters() -> dict[str, int]:
    """The printable letter by which byte-level BPE writes each byte (GPT-2's table), letter -> byte.

    Printable Latin-1 characters stand for themselves, the others for U+0100 onwards, in order.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(hidden)}


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary sibling, then make it visible at once."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write(temporary)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)
