"""A small packed arm with its tokenizer and holdout, as the other rooms leave them on disk."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from tasks.records.job import Job
from tasks.records.layout import PoolFolder
from tasks.records.packed import ROW_CONTENTS
from tasks.records.scores import write_strata
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.artifact import sha256_file
from tasks.store.root import Root

POOL, ARM = "pool-0123456789", "arm-0123456789"
LENGTH = 32
ROWS = 60
TEXT = "the cat sat on a mat and saw nine small green birds fly over old hills to sea"
WORDS = list(dict.fromkeys(TEXT.split(" ")))


def make_tokenizer():
    """Byte-level BPE of 300 tokens, the last one `<|bos|>`."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=299, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 50, trainer)
    tokenizer.add_special_tokens(["<|bos|>"])
    return tokenizer


def make_texts(count, seed, longest=60):
    """Texts that can be learned: each word is followed by one of two others."""
    dice = np.random.default_rng(seed)
    texts = []
    for _ in range(count):
        word = int(dice.integers(len(WORDS)))
        chosen = []
        for _ in range(int(dice.integers(1, longest))):
            chosen.append(WORDS[word])
            word = (word * 3 + 1 + int(dice.integers(2))) % len(WORDS)
        texts.append(" ".join(chosen))
    return texts


def write_artifacts(root, rows=ROWS, length=LENGTH, documents=24):
    """Tokenizer, evaluation and packed arm of POOL and ARM; the rows are texts cut where they end, as in packing."""
    tokenizer = make_tokenizer()
    vocab, bos = tokenizer.get_vocab_size(), tokenizer.token_to_id("<|bos|>")

    def make_trained(work):
        tokenizer.save(str(work.temporary("tokenizer.json")))
        work.finish("tokenizer.json")

    trained = root.build(f"pools/{POOL}/tokenizer", make_trained, spec={"vocab_size": vocab})
    holdout = root.build(f"pools/{POOL}/holdout", lambda work: None, spec={})
    inputs = {"tokenizer": trained.manifest, "holdout": holdout.manifest}
    text = root.build(f"arms/{ARM}/text", lambda work: None, spec={}, inputs={"holdout": holdout.manifest})

    def make_evaluation(work):
        texts = make_texts(documents, seed=1)
        ids = [tokenizer.encode(text).ids for text in texts]
        lengths = np.array([len(i) for i in ids])
        np.concatenate(ids).astype("<u2").tofile(work.temporary("tokens.bin"))
        work.finish("tokens.bin")
        table = pa.table(
            {
                "document": pa.array(range(documents), pa.int64()),
                "cluster": pa.array([i // 4 for i in range(documents)], pa.int32()),
                "bytes": pa.array([len(text.encode()) for text in texts], pa.int64()),
                "source": [""] * documents,
                "offset": pa.array(np.cumsum(lengths) - lengths, pa.int64()),
                "tokens": pa.array(lengths, pa.int64()),
            }
        )
        pq.write_table(table, work.temporary("documents.parquet"))
        work.finish("documents.parquet", rows=documents)
        work.facts.update(documents=documents, tokens=int(lengths.sum()), vocab_size=vocab, bos=bos)

    root.build(f"pools/{POOL}/evaluation", make_evaluation, spec={}, inputs=inputs)
    rated = np.arange(documents) / documents
    strata = PoolFolder(POOL).strata(Pool().score)
    root.build(strata, lambda work: write_strata(work, rated), spec={}, inputs={"holdout": holdout.manifest})

    def make_packed(work):
        stream = []
        while len(stream) < rows * length * 2:
            stream += tokenizer.encode(" ".join(make_texts(50, seed=len(stream)))).ids
        packed = np.array(stream[: rows * length], dtype="<u2").reshape(rows, length)
        np.concatenate([np.full((rows, 1), bos, "<u2"), packed], axis=1).tofile(work.temporary("rows.bin"))
        work.finish("rows.bin", rows=rows)
        contents = np.zeros(rows, ROW_CONTENTS)
        contents["documents"], contents["bytes"] = 1, 100
        contents["score"] = np.linspace(5, 0, rows)  # best first
        contents.tofile(work.temporary("contents.bin"))
        work.finish("contents.bin", rows=rows)
        work.facts.update(rows=rows, bytes=rows * 100, sequence_length=length, vocab_size=vocab, bos=bos)

    inputs = {"tokenizer": trained.manifest, "text": text.manifest}
    root.build(f"arms/{ARM}/packed/{length}-split", make_packed, spec={}, inputs=inputs)


def make_experiment(seed=1, arm=None, **training):
    """A model of one layer, batches of 4 rows: 15 steps of the 60 rows."""
    defaults = {
        "depth": 1,
        "sequence_length": LENGTH,
        "batch_tokens": 4 * LENGTH,
        "precision": "fp32",
        "device": "cpu",
        "eval_every": 6,
        "save_every": 4,
    }
    return Experiment(pool=Pool(), arm=arm or Arm(name="arm"), training=Training(**defaults | training), seed=seed)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A root with the artifacts that a run reads; copy it with `fresh_root` to train in it."""
    folder = tmp_path_factory.mktemp("prepared")
    write_artifacts(Root(folder))
    return folder


@pytest.fixture
def root(prepared, tmp_path):
    """A root of one test's own."""
    own = Root(tmp_path / "root")
    for name in ("pools", "arms"):
        (own.folder / name).symlink_to(prepared / name)
    return own


@pytest.fixture
def job(root):
    """The job of the small experiment."""
    return Job.of(root, make_experiment(), POOL, ARM)


def spoil_weights(folder):
    """Put a weight that is no number into a checkpoint, which stays whole by its checksums."""
    weights = torch.load(folder / "model.pt", weights_only=True)
    weights["lm_head.weight"][0, 0] = float("nan")
    torch.save(weights, folder / "model.pt")
    manifest = json.loads((folder / "manifest.json").read_text())
    for record in manifest["files"]:
        if record["path"] == "model.pt":
            record |= {"sha256": sha256_file(folder / "model.pt"), "bytes": (folder / "model.pt").stat().st_size}
    (folder / "manifest.json").write_text(json.dumps(manifest))
