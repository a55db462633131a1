"""Scores of a finished nanochat run: its weights become one of our checkpoints, which our evaluation scores.

The evaluation runs in a process of its own. An upstream whose model differs from ours (other tensors, or other logits) cannot be
scored so; then the nats count that its own forward pass gave to each document in the last evaluation, by the same rules.
"""

import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from tasks.engines.nanochat.exchange import import_checkpoint
from tasks.errors import DamagedError, InputError, TrainingError
from tasks.records.job import Job
from tasks.records.layout import JOB, SCORES, RunFolder
from tasks.records.scores import read_scores, scores_table, summarize
from tasks.store.artifact import Sources
from tasks.store.root import Root

log = logging.getLogger(__name__)
TOLERANCE = 0.01
"""Bits per byte by which our evaluation of the weights may differ from upstream's own (bf16 on either side)."""
SCORE = """
import sys
from pathlib import Path
from tasks.engines.builtin.score import score_checkpoint
from tasks.records.job import Job
job = Job.read(Path(sys.argv[1]))
score_checkpoint(job.open_root(), job.run, int(sys.argv[2]))
"""


def choose_scores(
    root: Root, job: Job, upstream: pa.Table, folder: Path, step: int, rows: int, inputs: Sources
) -> tuple[pa.Table, str]:
    """Scores of the final weights, and who made them: "builtin" where the model is the one we know, else "nanochat".

    `upstream`: its own scores; `folder`: where its checkpoint of `step` lies, trained on `rows` rows made from `inputs`.
    """
    try:
        import_checkpoint(root, job.run, folder, step, inputs, rows)
    except InputError as error:
        log.warning("The run %s is scored by nanochat's own forward pass: %s", job.run, error)
        return upstream, "nanochat"
    ours = _score(root, job, step)
    mine, theirs = summarize(ours)["bpb"], summarize(upstream)["bpb"]
    if abs(mine - theirs) > TOLERANCE:
        log.warning(
            "The run %s has %.4f bits per byte by our model, %.4f by nanochat's: the latter counts.",
            job.run,
            mine,
            theirs,
        )
        return upstream, "nanochat"
    return ours, "builtin"


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


def _score(root: Root, job: Job, step: int) -> pa.Table:
    """The built-in trainer's scores of a checkpoint, made in a process of its own. Raises TrainingError when that fails."""
    words = [sys.executable, "-c", SCORE, str(root.path(RunFolder(job.run).file(JOB))), str(step)]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"The weights of {job.run} after step {step} could not be scored ({reason}): run it again.")
    return read_scores(root.open(RunFolder(job.run).scores(step)).path / SCORES)
