"""Train the tokenizer of a pool on a random sample of it, once, for all arms."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Reference

from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import SAMPLE, TOKEN_BYTES, TOKENIZER, PoolFolder
from tasks.store.artifact import Artifact, Work
from tasks.store.root import Root
from tasks.tokens.tokenizer import PATTERN, SPECIAL_TOKENS, Tokenizer

DOCUMENT_CHARACTERS = 10_000
"""Documents are cut here before training, as nanochat does, so that no single one decides about merges."""

SMALLEST, LARGEST = 256 + len(SPECIAL_TOKENS), 65_536
READ = 1_024


def train_tokenizer(root: Root, pool_id: str, vocab_size: int, progress: Progress = silent) -> Artifact:
    """Make `pools/<pool>/tokenizer` from `pools/<pool>/sample`.

    `tokenizer.json` is the tokenizer; `token_bytes.npy` holds the bytes of each token, int32 of shape (vocab_size,), 0 for
    special tokens. One sample and one size give one tokenizer, whatever the machine.

    Raises InputError when the size is out of range or the sample has too few distinct pieces to fill it.
    """
    if not SMALLEST <= vocab_size <= LARGEST:
        raise InputError(f"vocab_size is {vocab_size}: give {SMALLEST} to {LARGEST}, so that a token fits 16 bits.")
    sample = root.open(PoolFolder(pool_id).sample)

    def make(work: Work) -> None:
        counts = {"documents": 0, "characters": 0}
        texts = _texts(sample.path / SAMPLE, sample.facts.get("documents", 0), counts, progress)
        reference = train_reference(texts, vocab_size)
        reference.save(str(work.temporary(TOKENIZER)))
        work.finish(TOKENIZER)
        tokenizer = Tokenizer(work.path / TOKENIZER, reference)
        with work.temporary(TOKEN_BYTES).open("wb") as file:
            np.save(file, tokenizer.token_bytes())
        work.finish(TOKEN_BYTES, rows=tokenizer.vocab_size)
        work.facts.update(
            vocab_size=tokenizer.vocab_size,
            bos=tokenizer.bos,
            special_tokens=tokenizer.special_tokens,
            pattern=PATTERN,
            **counts,
        )

    spec = {
        "vocab_size": vocab_size,
        "pattern": PATTERN,
        "special_tokens": list(SPECIAL_TOKENS),
        "document_characters": DOCUMENT_CHARACTERS,
    }
    return root.build(PoolFolder(pool_id).tokenizer, make, spec=spec, inputs={"sample": sample.manifest})


def train_reference(texts: Iterator[list[str]], vocab_size: int) -> Reference:
    """Byte-level BPE over batches of texts: 256 bytes, then merges, then the special tokens.

    Raises InputError when the texts run out of merges before `vocab_size`.
    """
    reference = Reference(models.BPE())
    reference.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    reference.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    reference.train_from_iterator(texts, trainer)
    reference.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS])
    if reference.get_vocab_size() < vocab_size:
        raise InputError(
            f"vocab_size is {vocab_size}, but the pool's sample yields only {reference.get_vocab_size()} tokens: "
            "lower vocab_size, or raise tokenizer_characters."
        )
    return reference


def _texts(path: Path, total: int, counts: dict[str, int], progress: Progress) -> Iterator[list[str]]:
    """Batches of texts, cut to DOCUMENT_CHARACTERS, counted as they pass."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(READ, columns=["text"]):
            texts = [text[:DOCUMENT_CHARACTERS] for text in batch.column(0).to_pylist() if text]
            counts["documents"] += len(texts)
            counts["characters"] += sum(map(len, texts))
            progress("tokenizer", counts["documents"], max(total, counts["documents"]), counts)
            yield texts
