"""Training an arm with upstream nanochat: `engine: nanochat` of an experiment.

Upstream runs at a commit that is known, in its own environment, as subprocesses in our process group, hooked in memory by
`overlay.py`. Its log lines become our metrics, which W&B gets from there under the run's one id, as for every engine; its
checkpoints are mirrored and gone on with; its final weights are scored by our evaluation.
"""

import logging
import math
import time
from typing import Any

import pyarrow.parquet as pq

from tasks.engines.nanochat import checkpoints, launch, metrics, watch
from tasks.engines.nanochat.environment import Environment, Gpu, find_environment
from tasks.engines.nanochat.inputs import Inputs, open_inputs
from tasks.engines.nanochat.launch import Ranks
from tasks.engines.nanochat.locks import hold
from tasks.engines.nanochat.logs import Step, Told, Validation, parse
from tasks.engines.nanochat.plan import UpstreamPlan, plan_run
from tasks.engines.nanochat.result import build_result, choose_scores, scores_of_nanochat, write_job
from tasks.engines.nanochat.tokenizer import export_tokenizer
from tasks.errors import DamagedError, InterruptedRun, LostProcessError, TrainingError
from tasks.progress import Progress, Stop, never, silent
from tasks.records.layout import DOCUMENTS, LOG, METRICS, RunFolder, run_id
from tasks.records.scaling import parameter_counts
from tasks.spec import Experiment
from tasks.store.artifact import Artifact
from tasks.store.root import Root

log = logging.getLogger(__name__)
STOPPED = 75
POLL_SECONDS = 0.25
WATCH_SECONDS = 5.0
HUNG_GRACE = 5.0
"""Seconds that ranks get to end when they can hardly save."""
MIRROR_GRACE = 15.0
"""Seconds that a run which did not finish gives to mirroring its last checkpoint."""


def train(
    root: Root, experiment: Experiment, pool_id: str, arm_id: str, progress: Progress = silent, stop: Stop = never
) -> Artifact:
    """Train a packed arm by nanochat and score it on the holdout: the artifact `runs/<run>/result`, as it is when complete.

    An earlier attempt is gone on with from its newest whole checkpoint (nanochat's resume is approximate: it loses the rest
    of a row group). `progress`: stage "train", in steps.

    Raises InputError for whatever cannot work, before anything expensive; BusyError when the run or a GPU is in use;
    InterruptedRun when it was asked to stop and saved a checkpoint; TrainingError when it hangs or fails; LostProcessError
    when a rank was killed.
    """
    run = run_id(experiment, arm_id)
    if root.find(RunFolder(run).result) is not None:
        return root.open(RunFolder(run).result)
    training = experiment.training
    inputs = open_inputs(root, pool_id, arm_id, training.sequence_length)
    rows, vocab_size = inputs.packed.facts["rows"], inputs.packed.facts["vocab_size"]
    plan_run(training, rows, vocab_size, ())  # what is wrong on any device is said before upstream is imported
    environment = find_environment(root.path(checkpoints.base_name(run)))
    gpus = environment.devices(training.device, training.gpus, training.precision)
    plan = plan_run(training, rows, vocab_size, gpus)
    folder = root.path(RunFolder(run).folder)
    attempt = Attempt(root, experiment, run, environment, gpus, plan, inputs, progress, stop)
    with hold(folder, run, gpus) as descriptors:
        attempt.prepare()
        attempt.follow(descriptors)
    write_job(root, run, experiment, pool_id, arm_id)
    return attempt.finish(pool_id, arm_id)


class Attempt:
    """One attempt at a run, from its newest whole checkpoint."""

    def __init__(
        self,
        root: Root,
        experiment: Experiment,
        run: str,
        environment: Environment,
        gpus: tuple[Gpu, ...],
        plan: UpstreamPlan,
        inputs: Inputs,
        progress: Progress,
        stop: Stop = never,
    ):
        self._root, self._experiment, self._run, self._plan, self._inputs = root, experiment, run, plan, inputs
        self._environment, self._gpus, self._progress, self._stop = environment, gpus, progress, stop
        self._folder = root.path(RunFolder(run).folder)
        self._base = root.path(checkpoints.base_name(run))
        self._state = self._base / "fabrating"
        self._start = 0
        self._saved: int | None = None
        self._broken: Step | None = None

    def prepare(self) -> None:
        """Everything that the ranks find on disk, and where they start."""
        training = self._experiment.training
        self._start = checkpoints.resume_step(self._root, self._run, training.gpus)
        self._saved = self._start or None
        metrics.resume(self._root, self._run, self._start)
        export_tokenizer(self._inputs.tokenizer.path, self._base)
        (self._state / "nats.f64").unlink(missing_ok=True)
        launch.write_settings(
            self._state / "settings.json",
            self._experiment,
            self._plan,
            shards=sorted(self._inputs.text.path.glob("shard_*.parquet")),
            evaluation=self._inputs.evaluation.path,
            bos=self._inputs.evaluation.facts["bos"],
            cpu=not self._gpus,
        )

    def follow(self, descriptors: list[int]) -> None:
        """Start the ranks and follow them to the end. Raises what `train` says."""
        training = self._experiment.training
        words = launch.command(
            self._environment,
            self._experiment,
            self._plan,
            self._run,
            cpu=not self._gpus,
            holdout_tokens=self._inputs.evaluation.facts["tokens"],
            resume=self._start,
        )
        variables = launch.variables(self._base, self._state / "settings.json", training.precision)
        written = metrics.Metrics(self._folder / METRICS, self._plan.batch_tokens)
        written.write("event", self._start, event="resumed" if self._start else "started", **self._about())
        log.info("training %s by nanochat; its log is %s", self._run, self._folder / LOG)
        keeper = checkpoints.Keeper(self._root, self._run, training.keep_last, training.keep_every)
        ranks = Ranks.start(words, training.gpus, self._environment.source, variables, self._folder, descriptors)
        finished = False
        try:
            self._listen(ranks, written, keeper)
            finished = True
        finally:
            ranks.end()
            self._hear(ranks, written, keeper, None)
            keeper.close(None if finished else MIRROR_GRACE)
        written.write("event", self._plan.iterations, event="finished")

    def _about(self) -> dict[str, Any]:
        return {
            "run": self._run,
            "engine": "nanochat",
            "commit": self._environment.identity.name,
            "torch": self._environment.torch,
            "device": self._device(),
            "gpus": self._experiment.training.gpus,
            "steps": self._plan.iterations,
            "batch_tokens": self._plan.batch_tokens,
            "micro_batch": self._plan.micro_rows,
            "tokens_planned": self._plan.tokens,
            "rows_left": self._plan.rows_left,
        }

    def _device(self) -> str:
        return self._gpus[0].name if self._gpus else "cpu"

    def _listen(self, ranks: Ranks, written: metrics.Metrics, keeper: checkpoints.Keeper) -> None:
        """Until the ranks are done. Raises when they were stopped, failed, hang, or lost their way."""
        watcher, looked = watch.Watch(watch.TIMES, watch.LEAST), time.monotonic()
        while (status := ranks.status()) is None:
            if self._stop():
                ranks.end()
            self._hear(ranks, written, keeper, watcher)
            if self._broken is not None:
                raise TrainingError(
                    f"The loss of {self._run} is {self._broken.loss} after step {self._broken.done}; {self._last_saved()}."
                )
            if time.monotonic() - looked > WATCH_SECONDS:
                looked = time.monotonic()
                if watcher.hangs(lambda: watch.gpu_utilization([gpu.uuid for gpu in self._gpus])):
                    raise self._hang(ranks, watcher)
            time.sleep(POLL_SECONDS)
        if status != 0:
            ranks.end(HUNG_GRACE)
            self._hear(ranks, written, keeper, None)
            raise self._failure(ranks, status)

    def _hear(
        self, ranks: Ranks, written: metrics.Metrics, keeper: checkpoints.Keeper, watcher: watch.Watch | None
    ) -> None:
        """Take in what the first rank has printed since the last time."""
        for line in ranks.lines():
            sign = parse(line)
            if sign is None:
                continue
            if watcher is not None:
                watcher.hear(sign)
            if isinstance(sign, Step) and not math.isfinite(sign.loss):
                raise TrainingError(
                    f"The loss of {self._run} is {sign.loss} after step {sign.done}; {self._last_saved()}."
                )
            written.take(sign)
            if isinstance(sign, Told) and sign.event == "saved":
                self._saved = sign.values["step"]
                keeper.saved(sign.values["step"])
            elif isinstance(sign, Told) and sign.event == "wandb":
                log.warning("W&B: %s; training goes on without it.", sign.values.get("problem"))
            elif isinstance(sign, Step):
                counters = {"loss": sign.loss, "tokens_per_second": sign.tokens_per_second}
                self._progress("train", sign.done, sign.total, counters | ({"mfu": sign.mfu} if sign.mfu else {}))
            elif isinstance(sign, Validation):
                self._progress("train", sign.step, self._plan.iterations, {"bpb": sign.bpb})

    def _last_saved(self) -> str:
        return f"the last checkpoint is that of step {self._saved}" if self._saved else "there is no checkpoint yet"

    def _hang(self, ranks: Ranks, watcher: watch.Watch) -> TrainingError:
        percents = watch.gpu_utilization([gpu.uuid for gpu in self._gpus])
        cause = watch.likely_cause(ranks.stacks())
        ranks.end(HUNG_GRACE)
        busy = f", GPUs {percents} % busy" if percents else ""
        return TrainingError(
            f"The run {self._run} hangs: nothing for {watcher.silence():.0f} s where a step takes {watcher.usual:.1f} s{busy}; "
            f"{cause}; {self._last_saved()}."
        )

    def _failure(self, ranks: Ranks, status: int) -> Exception:
        """What an exit status other than 0 means."""
        if status == STOPPED:
            return InterruptedRun(
                f"The run {self._run} was asked to stop; {self._last_saved()}: start it again to go on."
            )
        if status < 0:
            return LostProcessError(
                f"A rank of {self._run} was killed by signal {-status} (out of memory, or by hand?); {self._last_saved()}: "
                "start it again to go on."
            )
        return TrainingError(
            f"nanochat ended with status {status} ({ranks.last_words()}); {self._last_saved()}: read "
            f"{self._folder / 'log.txt'} and start it again."
        )

    def finish(self, pool_id: str, arm_id: str) -> Artifact:
        """Score the final weights and build the result."""
        plan, training = self._plan, self._experiment.training
        inputs = self._inputs.fingerprints(pool_id, arm_id)
        nats = self._state / "nats.f64"
        if not nats.is_file():
            raise DamagedError(f"{nats} is missing although nanochat has finished: run it again.")
        theirs = scores_of_nanochat(nats, pq.read_table(self._inputs.evaluation.path / DOCUMENTS))
        rows = plan.tokens // training.sequence_length
        lines = metrics.read(self._folder / METRICS)
        convert = {"inputs": inputs, "rows": rows, "seconds": metrics.wall_seconds(lines)}
        weights = checkpoints.folder_of(self._root, self._run)
        chosen = choose_scores(self._root, self._run, weights, plan.iterations, theirs, convert)
        facts = {
            "steps": plan.iterations,
            "tokens": plan.tokens,
            "rows": rows,
            "rows_left": plan.rows_left,
            "device": self._device(),
            "gpus": training.gpus,
            "compute": f"nanochat {self._environment.identity.name[:10]}, torch {self._environment.torch}",
            "depth": training.depth,
            "sequence_length": training.sequence_length,
            "batch_tokens": plan.batch_tokens,
            "parameters": parameter_counts(plan.shape).total,
            "engine": "nanochat",
            "commit": self._environment.identity.name,
            "scored_by": chosen["scored_by"],
            "bpb_nanochat": chosen["bpb_nanochat"],
        }
        return build_result(self._root, self._run, self._experiment, arm_id, pool_id, inputs, chosen["scores"], facts)
