"""`python -m tasks.hosts.smoke FOLDER GPUS`, run on a host: does the built-in trainer train there?

A d4 model takes 20 steps (without GPU a d1 model 5) on the bytes of FabRating's own source, packed by hand: driver, PyTorch, compiler, checkpoints and
evaluation are all used, no data is needed. The last line printed is JSON. Exit status 66: the loss did not fall.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks.records.layout import ArmFolder, PoolFolder
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.artifact import Work, fingerprint
from tasks.store.root import Root

ROWS = 8
FALL = 0.9995
"""The lowest loss must be below this part of the first one."""
POOL, ARM = "smoke-0000000000", "smoke-0000000001"
BYTES = 256
SPECIAL = ("bos", "user_start", "user_end", "assistant_start", "assistant_end")
SPECIAL += ("python_start", "python_end", "output_start", "output_end")
VOCABULARY = BYTES + len(SPECIAL)
HELD = 2_000
"""Bytes of the text that are the holdout."""


def byte_tokenizer() -> Tokenizer:
    """One token a byte, and the special tokens last."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([f"<|{name}|>" for name in SPECIAL])
    return tokenizer


def build_inputs(root: Root, rows: int, sequence: int) -> None:
    """The artifacts that the trainer reads: tokenizer, encoded holdout, packed arm."""
    tokenizer = byte_tokenizer()
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    ids = np.array(tokenizer.encode(text).ids, "<u2")
    held, ids = ids[:HELD], ids[HELD:]
    spec = {"smoke": len(ids), "rows": rows}

    def make_tokenizer(work: Work) -> None:
        tokenizer.save(str(work.temporary("tokenizer.json")))
        work.finish("tokenizer.json")
        with work.temporary("token_bytes.npy").open("wb") as file:
            np.save(file, np.array([1] * BYTES + [0] * len(SPECIAL), np.int32))
        work.finish("token_bytes.npy")

    made = root.build(PoolFolder(POOL).tokenizer, make_tokenizer, spec=spec)
    kept_out = fingerprint(HELD, len(ids))

    def make_text(work: Work) -> None:
        work.temporary("bytes.txt").write_text(text, encoding="utf-8")
        work.finish("bytes.txt")

    texts = root.build(ArmFolder(ARM).text, make_text, spec=spec, inputs={"holdout": kept_out})
    tokens = {"tokenizer": made.fingerprint}

    def make_evaluation(work: Work) -> None:
        documents = {"document": [0, 1], "cluster": [0, 1], "score": [0.0, 1.0], "decile": [0, 9]}
        documents |= {"bytes": [HELD // 2] * 2, "source": [""] * 2, "offset": [0, HELD // 2], "tokens": [HELD // 2] * 2}
        types = {"document": pa.int64(), "cluster": pa.int32(), "score": pa.float64(), "decile": pa.int8()}
        types |= {"bytes": pa.int64(), "source": pa.string(), "offset": pa.int64(), "tokens": pa.int64()}
        table = pa.table({name: pa.array(values, types[name]) for name, values in documents.items()})
        pq.write_table(table, work.temporary("documents.parquet"))
        work.finish("documents.parquet", rows=2)
        held.tofile(work.temporary("tokens.bin"))
        work.finish("tokens.bin")
        work.facts.update(bos=BYTES, vocab_size=VOCABULARY)

    def make_rows(work: Work) -> None:
        packed = np.resize(ids, (rows, sequence + 1)).astype("<u2")
        packed[:, 0] = BYTES
        packed.tofile(work.temporary("rows.bin"))
        work.finish("rows.bin", rows=rows)
        work.facts.update(
            rows=rows, sequence_length=sequence, vocab_size=VOCABULARY, bos=BYTES, tokens_per_epoch=rows * sequence
        )

    root.build(PoolFolder(POOL).evaluation, make_evaluation, spec=spec, inputs=tokens | {"holdout": kept_out})
    root.build(
        ArmFolder(ARM).packed(sequence, "split"), make_rows, spec=spec, inputs=tokens | {"text": texts.fingerprint}
    )


def main(folder: Path, gpus: int) -> int:
    """Train and print what happened. Returns the exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    root = Root(folder)
    depth, steps, sequence = (4, 20, 512) if gpus else (1, 5, 32)
    batch = ROWS * max(gpus, 1)
    build_inputs(root, steps * batch, sequence)
    training = Training(
        depth=depth,
        sequence_length=sequence,
        batch_tokens=batch * sequence,
        precision="bf16" if gpus else "fp32",
        gpus=max(gpus, 1),
        device="cuda" if gpus else "cpu",
        wandb="disabled",
    )
    experiment = Experiment(pool=Pool(name="smoke", vocab_size=VOCABULARY), arm=Arm(name="smoke"), training=training)
    job = {"root": root.url, "experiment": experiment.model_dump(mode="json"), "pool_id": POOL, "arm_id": ARM}
    (folder / "job.json").write_text(json.dumps(job))
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "tasks.engines.builtin", str(folder / "job.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "the trainer said nothing", file=sys.stderr
        )
        return 66 if done.returncode == 65 else done.returncode
    [metrics] = folder.glob("runs/*/metrics.jsonl")
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    [result] = folder.glob("runs/*/result/summary.json")
    summary = json.loads(result.read_text())
    seen = {
        "depth": depth,
        "steps": summary["steps"],
        "device": summary["device"],
        "first_loss": losses[0],
        "lowest_loss": min(losses),
        "seconds": round(time.monotonic() - started, 1),
        "tokens_per_second": summary.get("tokens_per_second"),
    }
    shutil.rmtree(folder)
    if not min(losses) < FALL * losses[0]:
        print(
            f"{steps} steps did not lower the loss ({losses[0]:.3f}, at best {min(losses):.3f}): the device computes wrongly",
            file=sys.stderr,
        )
        return 66
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
