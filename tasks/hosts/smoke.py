"""`python -m tasks.hosts.smoke FOLDER GPUS ATTENTION`, run on a host: does the built-in trainer train there?

A d4 model takes 20 steps (without a GPU a d1 model takes 5) on the bytes of FabRating's own source, packed by hand. That uses
driver, PyTorch, compiler, checkpoints and evaluation, and needs no data. On a GPU the ways to compute attention are measured first, and
what is taken is trained with. The last line printed is JSON. Exit status 66: the loss
did not fall.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from tasks.hosts.machine import WRONG_INPUT
from tasks.records.job import INPUT, Job
from tasks.records.layout import (
    CONTENTS,
    DOCUMENTS,
    JOB,
    METRICS,
    ROWS,
    TOKEN_BYTES,
    TOKENIZER,
    TOKENS,
    ArmFolder,
    PoolFolder,
    RunFolder,
)
from tasks.records.metrics import read_metrics
from tasks.records.packed import ROW_CONTENTS
from tasks.records.result import RunFacts
from tasks.records.scores import write_strata
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.spec.training import MEASURED
from tasks.store.artifact import Work
from tasks.store.root import Root

BATCH_ROWS = 8
FALL = 0.9995
"""The lowest loss must be below this part of the first one."""
TRIAL_SECONDS = 600
"""Flash Attention 4 compiles its kernels in a minute or two. The rest of the test needs as long again."""
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


def build_inputs(root: Root, rows: int, sequence: int, held_tokens: int = HELD, vocabulary: int = VOCABULARY) -> None:
    """The artifacts that the trainer reads: tokenizer, encoded holdout of `held_tokens`, packed arm.

    `vocabulary`: what the model is made for; more than the text uses costs what a real one does.
    """
    tokenizer = byte_tokenizer()
    text = "".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[1].rglob("*.py")))
    ids = np.array(tokenizer.encode(text).ids, "<u2")
    cut = min(held_tokens, len(ids) // 2)
    held, ids = np.resize(ids[:cut], held_tokens), ids[cut:]
    spec = {"smoke": len(ids), "rows": rows, "held": held_tokens, "vocabulary": vocabulary}

    def make_tokenizer(work: Work) -> None:
        tokenizer.save(str(work.temporary(TOKENIZER)))
        work.finish(TOKENIZER)
        with work.temporary(TOKEN_BYTES).open("wb") as file:
            np.save(file, np.array([1] * BYTES + [0] * len(SPECIAL), np.int32))
        work.finish(TOKEN_BYTES)

    made = root.build(PoolFolder(POOL).tokenizer, make_tokenizer, spec=spec)

    def make_holdout(work: Work) -> None:
        held.tofile(work.temporary(TOKENS))
        work.finish(TOKENS)

    held_out = root.build(PoolFolder(POOL).holdout, make_holdout, spec=spec)

    def make_text(work: Work) -> None:
        work.temporary("bytes.txt").write_text(text, encoding="utf-8")
        work.finish("bytes.txt")

    texts = root.build(ArmFolder(ARM).text, make_text, spec=spec, inputs={"holdout": held_out.manifest})
    tokens = {"tokenizer": made.manifest}

    def make_evaluation(work: Work) -> None:
        half = held_tokens // 2
        documents = {"document": [0, 1], "cluster": [0, 1]}
        documents |= {"bytes": [half] * 2, "source": [""] * 2, "offset": [0, half], "tokens": [half] * 2}
        types = {"document": pa.int64(), "cluster": pa.int32()}
        types |= {"bytes": pa.int64(), "source": pa.string(), "offset": pa.int64(), "tokens": pa.int64()}
        table = pa.table({name: pa.array(values, types[name]) for name, values in documents.items()})
        pq.write_table(table, work.temporary(DOCUMENTS))
        work.finish(DOCUMENTS, rows=2)
        held.tofile(work.temporary(TOKENS))
        work.finish(TOKENS)
        work.facts.update(bos=BYTES, vocab_size=vocabulary)

    def make_rows(work: Work) -> None:
        packed = np.resize(ids, (rows, sequence + 1)).astype("<u2")
        packed[:, 0] = BYTES
        packed.tofile(work.temporary(ROWS))
        work.finish(ROWS, rows=rows)
        np.array([(1, sequence, np.nan)] * rows, ROW_CONTENTS).tofile(work.temporary(CONTENTS))
        work.finish(CONTENTS, rows=rows)
        work.facts.update(rows=rows, sequence_length=sequence, vocab_size=vocabulary, bos=BYTES)
        work.facts.update(tokens_per_epoch=rows * sequence, bytes=rows * sequence)  # a token is a byte

    held_inputs = {"holdout": held_out.manifest}
    root.build(PoolFolder(POOL).evaluation, make_evaluation, spec=spec, inputs=tokens | held_inputs)
    score = Arm().of(Pool()).score or {}
    root.build(
        PoolFolder(POOL).strata(score), lambda work: write_strata(work, np.arange(2.0)), spec=spec, inputs=held_inputs
    )
    root.build(ArmFolder(ARM).packed(sequence, "split"), make_rows, spec=spec, inputs=tokens | {"text": texts.manifest})


def measure_attention(asked: str) -> tuple[dict[str, Any] | None, str]:
    """What `tasks.engines.builtin.trial` says, or None and why it could not. Under auto whatever goes wrong there leaves cuDNN."""
    command = [sys.executable, "-m", "tasks.engines.builtin.trial", asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TRIAL_SECONDS)
        if done.returncode == 0:
            found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
            return found, ""
        said = done.stderr.strip().splitlines()
        reason = said[-1] if said else f"the trial of attention ended with status {done.returncode}"
    except subprocess.TimeoutExpired:
        reason = f"the trial of attention took longer than {TRIAL_SECONDS} s"
    except (ValueError, IndexError):  # a library that is there said something more
        reason = "the trial of attention printed no result"
    unmeasured = {"taken": "cudnn", "milliseconds": {}, "seconds": {}, "left": [reason]}
    return (unmeasured if asked == "auto" else None), reason


def main(folder: Path, gpus: int, asked: str = "auto") -> int:
    """Train and print what happened. Returns the exit status."""
    shutil.rmtree(folder, ignore_errors=True)
    attention = None
    if gpus:
        attention, reason = measure_attention(asked)
        if attention is None:
            print(reason, file=sys.stderr)
            return WRONG_INPUT
    root = Root(folder)
    depth, steps, sequence = (4, 20, 512) if gpus else (1, 12, 32)
    batch = BATCH_ROWS * max(gpus, 1)
    build_inputs(root, steps * batch, sequence)
    training = Training(
        depth=depth,
        sequence_length=sequence,
        batch_tokens=batch * sequence,
        precision="bf16" if gpus else "fp32",
        gpus=max(gpus, 1),
        device="cuda" if gpus else "cpu",
        attention=asked if gpus else "auto",
        wandb="disabled",
    )
    experiment = Experiment(
        pool=Pool(name="smoke", source=folder.absolute().as_uri(), vocab_size=VOCABULARY),
        arm=Arm(name="smoke"),
        training=training,
    )
    job = Job.of(root, experiment, POOL, ARM)
    job.write(folder / JOB)
    started = time.monotonic()
    command = [sys.executable, "-m", "tasks.engines.builtin", str(folder / JOB)]
    measured = {MEASURED: attention["taken"]} if attention else {}
    done = subprocess.run(command, env=os.environ | measured, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        print((done.stderr.strip().splitlines() or ["the trainer said nothing"])[-1], file=sys.stderr)
        return WRONG_INPUT if done.returncode == INPUT else done.returncode
    lines = read_metrics(root.path(RunFolder(job.run).file(METRICS)))
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    facts = RunFacts.of(root.open(job.result).manifest)
    seen = {
        "depth": depth,
        "steps": facts.steps,
        "device": facts.device,
        "first_loss": losses[0],
        "lowest_loss": min(losses),
        "seconds": round(time.monotonic() - started, 1),
        "tokens_per_second": facts.tokens_per_second,
        "attention": attention,
    }
    shutil.rmtree(folder)
    if not min(losses) < FALL * losses[0]:
        print(
            f"{steps} steps did not lower the loss ({losses[0]:.3f}, at best {min(losses):.3f}): the device computes wrongly",
            file=sys.stderr,
        )
        return WRONG_INPUT
    print(json.dumps(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
