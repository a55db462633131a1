"""What a finished run leaves: scores per holdout document, a summary, samples, and the metrics it was made with."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.engines.builtin import metrics
from tasks.engines.builtin.evaluation import scores_table, summarize
from tasks.records.job import Job
from tasks.records.layout import METRICS, SAMPLES, SCORES, SUMMARY
from tasks.store.artifact import Artifact, Work, code_version
from tasks.store.root import Root


def speed(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over the training lines: tokens_per_second, mfu; the largest gpu_memory_bytes; data_wait as part of a step."""
    timed = [line for line in lines if line["kind"] == "train" and line.get("step_seconds")]
    if not timed:
        return {}
    seconds = sum(line["step_seconds"] for line in timed)
    mean: dict[str, Any] = {
        "tokens_per_second": sum(line["tokens_per_second"] * line["step_seconds"] for line in timed) / seconds,
        "data_wait": sum(line["data_wait"] for line in timed) / seconds,
    }
    if "mfu" in timed[0]:
        mean["mfu"] = sum(line.get("mfu", 0.0) * line["step_seconds"] for line in timed) / seconds
    memory = [line["gpu_memory_bytes"] for line in lines if "gpu_memory_bytes" in line]
    return mean | ({"peak_memory_bytes": max(memory)} if memory else {})


def write_scores(work: Work, nats: np.ndarray, documents: pa.Table) -> None:
    """Add `scores.parquet` to an artifact in the making."""
    pq.write_table(scores_table(nats, documents), work.temporary(SCORES), compression="zstd")
    work.finish(SCORES, rows=documents.num_rows)


def write_json(work: Work, name: str, content: Any) -> None:
    """Add a JSON file to an artifact in the making."""
    work.temporary(name).write_text(json.dumps(content, indent=1) + "\n")
    work.finish(name)


def build_result(
    root: Root,
    job: Job,
    fingerprints: Mapping[str, str],
    nats: np.ndarray,
    documents: pa.Table,
    samples: Sequence[Mapping[str, Any]],
    facts: Mapping[str, Any],
    metrics_file: Path,
) -> Artifact:
    """The artifact `runs/<run>/result`. `facts` are what the trainer knows beyond scores and speed."""
    lines = metrics.read(metrics_file)
    summary = {
        **summarize(nats, documents),
        **facts,
        **speed(lines),
        "seed": job.experiment.seed,
        "code": code_version(),
    }

    def make(work: Work) -> None:
        write_scores(work, nats, documents)
        write_json(work, SUMMARY, {"run": job.run, "arm": job.arm_id, "pool": job.pool_id, **summary})
        write_json(work, SAMPLES, list(samples))
        shutil.copyfile(metrics_file, work.temporary(METRICS))
        work.finish(METRICS, rows=len(lines))
        work.facts.update(summary)

    return root.build(job.result, make, spec=job.experiment.identity(), inputs=fingerprints)
