"""Scores of a finished nanochat run: its weights become one of our checkpoints, which our evaluation scores.

The evaluation runs in a process of its own. An upstream whose model differs from ours (other tensors, or other logits) cannot be
scored so; then the nats count that its own forward pass gave to each document in the last evaluation, by the same rules.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.engines.nanochat.exchange import import_checkpoint
from tasks.errors import DamagedError, InputError, TrainingError
from tasks.records.job import Job
from tasks.records.layout import JOB, SCORES, RunFolder
from tasks.records.result import Sample
from tasks.records.scores import read_scores, scores_table, summarize
from tasks.store.artifact import Sources
from tasks.store.root import Root

log = logging.getLogger(__name__)
TOLERANCE = 0.01
"""Bits per byte by which our evaluation of the weights may differ from upstream's own (bf16 on either side)."""
SCORE = """
import json
import sys
from pathlib import Path
from tasks.engines.builtin.score import sample_checkpoint, score_checkpoint
from tasks.records.job import Job
job = Job.read(Path(sys.argv[1]))
root, step = job.open_root(), int(sys.argv[2])
score_checkpoint(root, job.run, step)
print(json.dumps(sample_checkpoint(root, job.run, step)))
"""


@dataclass(frozen=True)
class Scored:
    """Scores of the final weights. `by`: whose forward pass gave them, "builtin" where the model is the one we know, else "nanochat"."""

    scores: pa.Table
    by: str
    samples: Sequence[Sample] = ()
    """What our model writes with these weights; none where it is not upstream's."""


def choose_scores(
    root: Root, job: Job, upstream: pa.Table, folder: Path, step: int, rows: int, inputs: Sources
) -> Scored:
    """The scores that count: ours of the final weights, or nanochat's own.

    `upstream`: those; `folder`: where its checkpoint of `step` lies, trained on `rows` rows made from `inputs`.
    """
    try:
        import_checkpoint(root, job.run, folder, step, inputs, rows)
    except InputError as error:
        log.warning("The run %s is scored by nanochat's own forward pass: %s", job.run, error)
        return Scored(upstream, "nanochat")
    ours, samples = _score(root, job, step)
    mine, theirs = summarize(ours)["bpb"], summarize(upstream)["bpb"]
    if abs(mine - theirs) > TOLERANCE:
        log.warning(
            "The run %s has %.4f bits per byte by our model, %.4f by nanochat's: the latter counts.",
            job.run,
            mine,
            theirs,
        )
        return Scored(upstream, "nanochat")
    return Scored(ours, "builtin", samples)


def upstream_scores(nats_file: Path, documents: pa.Table) -> pa.Table:
    """Scores per document from the nats that the overlay kept in its last evaluation. Raises DamagedError for another number."""
    if not nats_file.is_file():
        raise DamagedError(f"{nats_file} is missing although nanochat has finished: run it again.")
    nats = np.fromfile(nats_file, dtype=np.float64)
    if len(nats) != documents.num_rows:
        raise DamagedError(
            f"{nats_file} holds {len(nats):,} documents, the holdout {documents.num_rows:,}: run it again."
        )
    return scores_table(nats, documents)


def _score(root: Root, job: Job, step: int) -> tuple[pa.Table, list[Sample]]:
    """The built-in trainer's scores and samples of a checkpoint, made in a process of its own. Raises TrainingError when that fails."""
    words = [sys.executable, "-c", SCORE, str(root.path(RunFolder(job.run).file(JOB))), str(step)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"The weights of {job.run} after step {step} could not be scored ({reason}): run it again.")
    samples: list[Sample] = json.loads(done.stdout.splitlines()[-1])
    return read_scores(root.open(RunFolder(job.run).scores(step)).path / SCORES), samples
