"""What a finished nanochat run leaves: its weights as one of our checkpoints, scores by our evaluation, the result.

Scores come from the built-in trainer's evaluation, run as a process of its own on the converted weights. An upstream whose
model is another one (other tensors, or other logits) cannot be scored so; then the nats that its own forward pass gave to
each document in the last evaluation, by the same rules, are taken, and the facts say so (`scored_by`).
"""

import json
import logging
import math
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.engines.nanochat import metrics
from tasks.engines.nanochat.exchange import import_checkpoint
from tasks.errors import DamagedError, InputError, TrainingError
from tasks.records.layout import JOB, METRICS, SAMPLES, SCORES, SUMMARY, RunFolder
from tasks.spec import Experiment
from tasks.store.artifact import Artifact, Work, code_version, write_atomic
from tasks.store.root import Root

log = logging.getLogger(__name__)
TOLERANCE = 0.01
"""Bits per byte by which our evaluation of the weights may differ from upstream's own (bf16 on either side)."""
SCORE = """
import sys
from pathlib import Path
from tasks.store.root import Root
from tasks.engines.builtin.run import score
url, cache, run, step = sys.argv[1:]
score(Root(url, Path(cache) if cache else None), run, int(step))
"""


def write_job(root: Root, run: str, experiment: Experiment, pool_id: str, arm_id: str) -> None:
    """The run's job file, from which the built-in trainer's evaluation knows what the run read."""
    cache = str(root.folder.parent) if root.remote is not None else None
    job = {"root": root.url, "cache": cache, "pool_id": pool_id, "arm_id": arm_id}
    text = json.dumps({**job, "experiment": experiment.model_dump(mode="json")}, indent=1)
    write_atomic(root.path(RunFolder(run).file(JOB)), text)


def score(root: Root, run: str, step: int) -> Artifact:
    """The artifact `runs/<run>/scores/step_<step>`, made by the built-in trainer in a process of its own.

    Raises TrainingError with its last line when that fails.
    """
    cache = str(root.folder.parent) if root.remote is not None else ""
    command = [sys.executable, "-c", SCORE, root.url, cache, run, str(step)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise TrainingError(f"The weights of {run} after step {step} could not be scored ({reason}): run it again.")
    return root.open(RunFolder(run).scores(step))


def scores_of_nanochat(nats_file: Path, documents: pa.Table) -> pa.Table:
    """Scores per document from the nats that the overlay kept in its last evaluation."""
    nats = np.fromfile(nats_file, dtype=np.float64)
    if len(nats) != documents.num_rows:
        raise DamagedError(
            f"{nats_file} holds {len(nats):,} documents, the holdout {documents.num_rows:,}: run it again."
        )
    table = documents.select(["document", "cluster", "score", "decile", "bytes", "tokens"])
    return table.append_column("nats", pa.array(nats)).append_column("source", documents["source"])


def summarize(scores: pa.Table) -> dict[str, Any]:
    """`bpb` over all documents, each weighted by its bytes, and `bpb_by_decile` (None for one without documents)."""
    nats, size, decile = (scores[name].to_numpy() for name in ("nats", "bytes", "decile"))

    def bits(chosen: np.ndarray) -> float | None:
        count = size[chosen].sum()
        return float(nats[chosen].sum() / (math.log(2) * count)) if count else None

    return {"bpb": bits(np.ones(len(nats), bool)), "bpb_by_decile": [bits(decile == d) for d in range(10)]}


def choose_scores(root: Root, run: str, folder: Path, step: int, theirs: pa.Table, convert: Mapping[str, Any]) -> dict:
    """Scores of the final weights: ours where the model is the one we know, else upstream's own.

    `convert`: inputs, rows and seconds for the checkpoint. Returns the table, who made it, and upstream's bits per byte.
    """
    upstream = summarize(theirs)["bpb"]
    kept = {"scores": theirs, "scored_by": "nanochat", "bpb_nanochat": upstream}
    try:
        import_checkpoint(root, run, folder, step, **convert)
    except InputError as error:
        log.warning("The run %s is scored by nanochat's own forward pass: %s", run, error)
        return kept
    ours = pq.read_table(score(root, run, step).path / SCORES)
    bpb = summarize(ours)["bpb"]
    if abs(bpb - upstream) > TOLERANCE:
        log.warning(
            "The run %s has %.4f bits per byte by our model, %.4f by nanochat's: the latter counts.", run, bpb, upstream
        )
        return kept
    return {"scores": ours, "scored_by": "builtin", "bpb_nanochat": upstream}


def build_result(
    root: Root,
    run: str,
    experiment: Experiment,
    arm_id: str,
    pool_id: str,
    inputs: Mapping[str, str],
    scores: pa.Table,
    facts: Mapping[str, Any],
) -> Artifact:
    """The artifact `runs/<run>/result`, of the same shape as the built-in trainer's (without text samples)."""
    metrics_file = root.path(RunFolder(run).file(METRICS))
    lines = metrics.read(metrics_file)
    summary = {**summarize(scores), **facts, **metrics.speed(lines)}
    summary |= {"wall_seconds": metrics.wall_seconds(lines), "seed": experiment.seed, "code": code_version()}

    def make(work: Work) -> None:
        pq.write_table(scores, work.temporary(SCORES), compression="zstd")
        work.finish(SCORES, rows=scores.num_rows)
        described = {"run": run, "arm": arm_id, "pool": pool_id, **summary}
        for name, content in ((SUMMARY, described), (SAMPLES, [])):
            work.temporary(name).write_text(json.dumps(content, indent=1) + "\n")
            work.finish(name)
        shutil.copyfile(metrics_file, work.temporary(METRICS))
        work.finish(METRICS, rows=len(lines))
        work.facts.update(summary)

    return root.build(RunFolder(run).result, make, spec=experiment.identity(), inputs=inputs)
