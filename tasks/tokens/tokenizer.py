"""What a tokenizer is: byte-level BPE, a pre-split pattern, nine special tokens placed last.

The definition lives in one `tokenizer.json` of Hugging Face's `tokenizers`, which is the reference for every encoder.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer as Reference
from tokenizers import pre_tokenizers

from tasks.errors import InputError
from tasks.records.layout import TOKENIZER

PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
"""nanochat's pre-split: GPT-4's with numbers cut into groups of at most two digits."""

BOS = "<|bos|>"
SPECIAL_TOKENS = (
    BOS,
    "<|user_start|>",
    "<|user_end|>",
    "<|assistant_start|>",
    "<|assistant_end|>",
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)


class Tokenizer:
    """A trained tokenizer.

    `reference` is the `tokenizers` object whose ids are right by definition; `bos` the id that starts every document;
    `special_tokens` the ids of the special tokens by name.
    """

    def __init__(self, path: Path, reference: Reference):
        # The name of a special token inside a document is text like any other: it must not become a control token.
        reference.encode_special_tokens = True
        self.path = path
        self.reference = reference
        self.vocab_size: int = reference.get_vocab_size()
        ids = ((name, reference.token_to_id(name)) for name in SPECIAL_TOKENS)
        self.special_tokens: dict[str, int] = {name: number for name, number in ids if number is not None}
        self.bos: int = self.special_tokens[BOS]

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without BOS. Unpaired surrogates, which UTF-8 cannot hold, become U+FFFD."""
        return self.reference.encode(replace_surrogates(text), add_special_tokens=False).ids

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, names of special tokens included; bytes that are no UTF-8 become U+FFFD."""
        return self.reference.decode(list(ids), skip_special_tokens=False)

    def ranks(self) -> dict[bytes, int]:
        """The bytes of every token that is not special, with its id: tiktoken's mergeable ranks."""
        alphabet = {character: byte for byte, character in enumerate(byte_alphabet())}
        vocabulary = self.reference.get_vocab(with_added_tokens=False)
        return {bytes(alphabet[character] for character in token): rank for token, rank in vocabulary.items()}

    def token_bytes(self) -> np.ndarray:
        """Bytes of each token, 0 for special ones, int32 of shape (vocab_size,): what bits per byte are counted with."""
        lengths = np.zeros(self.vocab_size, np.int32)
        for token, rank in self.ranks().items():
            lengths[rank] = len(token)
        return lengths


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer in a `tokenizer.json`, or in the artifact folder that holds one.

    Raises InputError when there is none, when it cannot be read, or when it lacks one of the special tokens.
    """
    path = Path(path)
    file = path / TOKENIZER if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"There is no tokenizer at {file}: train it first (`fabrating prepare`), or correct the path.")
    try:
        reference = Reference.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{file} is not a tokenizer.json ({error}): train the tokenizer again.") from error
    missing = [name for name in SPECIAL_TOKENS if reference.token_to_id(name) is None]
    if missing:
        raise InputError(f"The tokenizer {file} lacks the special token {missing[0]}: use one that FabRating trained.")
    return Tokenizer(file, reference)


def replace_surrogates(text: str) -> str:
    """The text itself, or with U+FFFD for each unpaired surrogate when UTF-8 cannot encode it (a pair is joined)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def byte_alphabet() -> list[str]:
    """The character by which byte-level BPE writes each byte, by byte value.

    The alphabet of GPT-2: printable Latin-1 stands for itself, the other bytes are the characters from U+0100 on.
    """
    own = {ord(c) for c in pre_tokenizers.ByteLevel.alphabet() if ord(c) < 256}
    shifted = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(shifted)) for byte in range(256)]
