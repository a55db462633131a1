"""What either engine leaves behind: the result of a run, and scores of a checkpoint."""

import shutil
from collections.abc import Sequence
from dataclasses import asdict

import pyarrow as pa

from tasks.records.code import Code
from tasks.records.job import Job
from tasks.records.layout import METRICS, RunFolder
from tasks.records.metrics import of_attempts, read_metrics, speed, wall_seconds
from tasks.records.result import RunFacts, Sample, ScoreFacts, TrainedFacts, write_facts, write_samples
from tasks.records.scores import summarize, write_scores
from tasks.store.artifact import Artifact, Sources, Work, code_version
from tasks.store.root import Root


def build_result(
    root: Root,
    job: Job,
    inputs: Sources,
    trained: TrainedFacts,
    scores: pa.Table,
    samples: Sequence[Sample] = (),
) -> Artifact:
    """The artifact `runs/<run>/result`: scores, facts, samples, and the metrics of all attempts."""
    metrics_file = root.path(RunFolder(job.run).file(METRICS))
    lines = read_metrics(metrics_file)
    training, code = job.experiment.training, Code.of_this_process()
    computed = {name: found for name in ("device", "compute") if (found := of_attempts(lines, name))}
    facts = RunFacts(
        **(asdict(trained) | computed),
        **summarize(scores),
        **speed(lines),
        wall_seconds=wall_seconds(lines),
        engine=training.engine,
        depth=training.depth,
        sequence_length=training.sequence_length,
        gpus=training.gpus,
        seed=job.experiment.seed,
        code=code.code,
        code_commit=code.commit,
        training_version=code.training_version,
    )

    def make(work: Work) -> None:
        write_scores(work, scores)
        write_facts(work, job, facts)
        write_samples(work, samples)
        shutil.copyfile(metrics_file, work.temporary(METRICS))
        work.finish(METRICS, rows=len(lines))

    return root.build(job.result, make, spec=job.experiment.identity(), inputs=inputs)


def write_scored(work: Work, job: Job, scores: pa.Table, *, steps: int, tokens: int) -> None:
    """Fill an artifact with the scores of a checkpoint after `steps` steps, trained on `tokens` tokens."""
    write_scores(work, scores)
    write_facts(work, job, ScoreFacts(**summarize(scores), steps=steps, tokens=tokens, code=code_version()))
