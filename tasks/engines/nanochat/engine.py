"""Training an arm with upstream nanochat: `engine: nanochat` of an experiment.

Upstream runs at a known commit, in its own environment, as subprocesses in our process group, hooked in memory by `overlay.py`.
Its log lines become our metrics; its checkpoints are mirrored and resumed from; its final weights are scored by our evaluation.
"""

import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from tasks.engines.inputs import Inputs, open_inputs
from tasks.engines.locks import hold_attempt
from tasks.engines.nanochat import checkpoints, launch, watch
from tasks.engines.nanochat.environment import Environment, TorchGpu, find_environment
from tasks.engines.nanochat.logs import Recorder, Step, Told, Validation, parse
from tasks.engines.nanochat.plan import UpstreamPlan, plan_run, require_one_epoch
from tasks.engines.nanochat.scoring import choose_scores, upstream_scores
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.engines.ranks import GRACE, POLL_SECONDS, Ranks
from tasks.engines.results import build_result
from tasks.errors import FULL, DiskError, InterruptedRun, LostProcessError, TrainingError
from tasks.progress import Progress, Stop, never
from tasks.records.hardware import Hardware, settle
from tasks.records.job import RESUME, Job
from tasks.records.layout import DOCUMENTS, LOG, METRICS, STRATA, ArmFolder, RunFolder
from tasks.records.metrics import MetricsLog, cut_back
from tasks.records.packed import TrainedText, read_contents
from tasks.records.result import TrainedFacts
from tasks.records.scaling import parameter_counts
from tasks.records.scores import summarize, with_strata
from tasks.store.root import Root

log = logging.getLogger(__name__)
WATCH_SECONDS = 5.0
HUNG_GRACE = 5.0
"""Seconds that ranks get to end when they can hardly save."""
MIRROR_GRACE = 15.0
"""Seconds that a run which did not finish gives to mirroring its last checkpoint."""


def train(root: Root, job: Job, progress: Progress, stop: Stop) -> None:
    """Run nanochat to its end and build the result. Its resume is approximate: it loses the rest of a row group.

    Whatever cannot work raises InputError before anything expensive. Raises what `entry.train` says.
    """
    training = job.experiment.training
    require_one_epoch(job.experiment.arm)
    inputs = open_inputs(root, job)
    rows, vocab_size = inputs.packed.facts["rows"], inputs.packed.facts["vocab_size"]
    plan_run(training, rows, vocab_size, ())  # what is wrong on any device is said before upstream is imported
    environment = find_environment(root.path(checkpoints.base_name(job.run)))
    gpus = environment.devices(training.device, training.gpus, training.precision)
    plan = plan_run(training, rows, vocab_size, gpus)
    attempt = Attempt(root, job, inputs, environment, gpus, plan, progress, stop)
    with hold_attempt(root, job.run, {gpu.uuid: gpu.name for gpu in gpus}) as descriptors:
        if job.comparison:
            settle(root, job.comparison, training, job.pool_id, job.run, attempt.hardware)
        attempt.prepare()
        attempt.follow(descriptors)
        attempt.finish()


@dataclass
class Attempt:
    """One attempt at a run, from its newest complete checkpoint."""

    root: Root
    job: Job
    inputs: Inputs
    environment: Environment
    gpus: tuple[TorchGpu, ...]
    plan: UpstreamPlan
    progress: Progress
    stop: Stop = never

    def __post_init__(self) -> None:
        self._folder = self.root.path(RunFolder(self.job.run).folder)
        self._base = self.root.path(checkpoints.base_name(self.job.run))
        self._settings = self._base / "fabrating" / "settings.json"
        self._nats = self._base / "fabrating" / "nats.f64"
        self._start = 0
        self._saved: int | None = None

    def prepare(self) -> None:
        """Everything that the ranks find on disk, and where they start."""
        job = self.job
        self._start = checkpoints.resume_step(self.root, job.run, job.experiment.training.gpus)
        self._saved = self._start or None
        cut_back(self.root, job.run, self._start, evaluated=False)  # nanochat saves first: it evaluates there again
        export_tokenizer(self.inputs.tokenizer.path, self._base)
        self._nats.unlink(missing_ok=True)
        launch.write_settings(
            self._settings,
            job.experiment,
            self.plan,
            shards=sorted(self.root.open(ArmFolder(job.arm_id).text).path.glob("shard_*.parquet")),
            evaluation=self.inputs.evaluation.path,
            strata=self.inputs.strata.path / STRATA,
            bos=self.inputs.evaluation.facts["bos"],
            cpu=not self.gpus,
        )

    def follow(self, descriptors: Sequence[int]) -> None:
        """Start the ranks and follow them to the end. Raises what `train` says."""
        run, training = self.job.run, self.job.experiment.training
        words = launch.command(
            self.environment,
            self.job.experiment,
            self.plan,
            run,
            cpu=not self.gpus,
            holdout_tokens=self.inputs.evaluation.facts["tokens"],
            resume=self._start,
        )
        metrics = MetricsLog(self._folder / METRICS)
        metrics.begin(self._start, **self._about())
        log.info("training %s by nanochat; its log is %s", run, self._folder / LOG)
        self._recorder = Recorder(metrics, self.plan.batch_tokens)
        self._watch = watch.Watch(watch.TIMES, watch.LEAST)
        self._keeper = checkpoints.Keeper(self.root, run, training.keep_last, training.keep_every)
        self._ranks = Ranks.start(
            words,
            [self._folder / (f"log.rank{rank}.txt" if rank else LOG) for rank in range(training.gpus)],
            environment=launch.variables(self._base, self._settings, self.root.compiled, training.precision),
            folder=self.environment.source,
            inherit=descriptors,
        )
        finished = False
        try:
            self._listen()
            finished = True
        finally:
            self._ranks.end()
            self._hear()
            self._keeper.close(None if finished else MIRROR_GRACE)
        metrics.write("event", self.plan.iterations, event="finished")
        metrics.close()

    def finish(self) -> None:
        """Score the final weights and build the result."""
        plan, job = self.plan, self.job
        rows = plan.tokens // job.experiment.training.sequence_length
        documents = with_strata(
            pq.read_table(self.inputs.evaluation.path / DOCUMENTS), self.inputs.strata.path / STRATA
        )
        theirs = upstream_scores(self._nats, documents)
        weights = checkpoints.folder_of(self.root, job.run)
        made_from = self.inputs.by_role
        scored = choose_scores(self.root, job, theirs, weights, plan.iterations, rows, made_from)
        commit = self.environment.identity.name
        packed = self.inputs.packed
        read = TrainedText.of(read_contents(packed.path), np.arange(rows), packed.facts["bytes"])
        trained = TrainedFacts(
            **asdict(read),
            steps=plan.iterations,
            tokens=plan.tokens,
            rows=rows,
            rows_left=plan.rows_left,
            batch_tokens=plan.batch_tokens,
            parameters=parameter_counts(plan.shape).total,
            **asdict(self.hardware),
            commit=commit,
            scored_by=scored.by,
            bpb_nanochat=summarize(theirs)["bpb"],
        )
        build_result(self.root, job, made_from, trained, scored.scores, scored.samples)

    def _about(self) -> dict[str, Any]:
        return {
            "run": self.job.run,
            "engine": "nanochat",
            "commit": self.environment.identity.name,
            "torch": self.environment.torch,
            "device": self.hardware.device,
            "gpus": self.job.experiment.training.gpus,
            "steps": self.plan.iterations,
            "batch_tokens": self.plan.batch_tokens,
            "micro_batch": self.plan.micro_rows,
            "tokens_planned": self.plan.tokens,
            "rows_left": self.plan.rows_left,
        }

    @property
    def hardware(self) -> Hardware:
        """What the ranks compute with."""
        found = self.environment
        compute = f"nanochat {found.identity.name[:10]}, torch {found.torch}"
        return Hardware(self.gpus[0].name if self.gpus else "cpu", found.torch, found.cuda, compute)

    def _listen(self) -> None:
        """Until the ranks are done. Raises when they were stopped, failed or hang, or when the loss is no number."""
        checked = time.monotonic()
        while (status := self._ranks.status()) is None:
            if self.stop():
                self._ranks.end()
            self._hear()
            if time.monotonic() - checked > WATCH_SECONDS:
                checked = time.monotonic()
                self.root.check_lease(ask=False)
                if self._watch.hangs(self._utilization):
                    raise self._hang()
            time.sleep(POLL_SECONDS)
        if status != 0:
            self._ranks.end(GRACE if status == RESUME else HUNG_GRACE)
            self._hear()
            raise self._failure(status)

    def _hear(self) -> None:
        """Take in what the first rank has printed since the last time."""
        for line in self._ranks.lines():
            sign = parse(line)
            if sign is None:
                continue
            self._watch.hear(sign)
            if isinstance(sign, Step) and not math.isfinite(sign.loss):
                raise TrainingError(
                    f"The loss of {self.job.run} is {sign.loss} after step {sign.done}; {self._last_saved()}."
                )
            self._recorder.take(sign)
            if isinstance(sign, Told) and sign.event == "saved":
                self._saved = sign.values["step"]
                self._keeper.saved(sign.values["step"])
            elif isinstance(sign, Step):
                counters = {"loss": sign.loss, "tokens_per_second": sign.tokens_per_second}
                self.progress("train", sign.done, sign.total, counters | ({"mfu": sign.mfu} if sign.mfu else {}))
            elif isinstance(sign, Validation):
                self.progress("train", sign.step, self.plan.iterations, {"bpb": sign.bpb})

    def _utilization(self) -> list[int] | None:
        return watch.gpu_utilization([gpu.uuid for gpu in self.gpus])

    def _last_saved(self) -> str:
        return f"the last checkpoint is that of step {self._saved}" if self._saved else "there is no checkpoint yet"

    def _hang(self) -> TrainingError:
        percents = self._utilization()
        cause = watch.likely_cause(watch.stacks(self._ranks))
        self._ranks.end(HUNG_GRACE)
        busy = f", GPUs {percents} % busy" if percents else ""
        return TrainingError(
            f"The run {self.job.run} hangs: nothing for {self._watch.silence():.0f} s where a step takes "
            f"{self._watch.usual:.1f} s{busy}; {cause}; {self._last_saved()}."
        )

    def _failure(self, status: int) -> Exception:
        """What an exit status other than 0 means."""
        if status == RESUME:
            return InterruptedRun(
                f"The run {self.job.run} was asked to stop; {self._last_saved()}: start it again to resume."
            )
        if status < 0:
            return LostProcessError(
                f"A rank of {self.job.run} was killed by signal {-status} (out of memory, or by hand?); "
                f"{self._last_saved()}: start it again to resume."
            )
        words = self._ranks.last_words()
        ended = f"nanochat ended with status {status} ({words}); {self._last_saved()}"
        if any(os.strerror(number) in words for number in FULL):
            return DiskError(f"{ended}: free space for {self._folder} and start it again.")
        return TrainingError(f"{ended}: read {self._folder / LOG} and start it again.")
