"""What a trainer process is told: one small JSON file, the same for every rank and every attempt."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from tasks.errors import DamagedError, InputError
from tasks.records.layout import JOB, ArmFolder, PoolFolder, RunFolder, run_id
from tasks.spec import Experiment, Spec
from tasks.store.artifact import Artifact, write_atomic
from tasks.store.root import Root

DONE, FAILED, INPUT, BUSY, RESUME = 0, 1, 65, 69, 75
"""Exit status of a trainer process."""


class Job(Spec):
    """One training run: which experiment, on which arm, under which root. `cache`: local folder of a remote root."""

    root: str
    cache: str | None = None
    experiment: Experiment
    pool_id: str
    arm_id: str

    @classmethod
    def of(cls, root: Root, experiment: Experiment, pool_id: str, arm_id: str) -> "Job":
        cache = str(root.folder.parent) if root.remote is not None else None
        return cls(root=root.url, cache=cache, experiment=experiment, pool_id=pool_id, arm_id=arm_id)

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Parse a job file. Raises InputError when there is none or it is none."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"The job file {path} cannot be read ({error}): give the path of a job.json.") from error
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise InputError(f"The job file {path} is no job ({where}: {first['msg']}): write it anew.") from error

    def write(self, path: Path) -> None:
        write_atomic(path, self.model_dump_json(indent=1))

    def open_root(self) -> Root:
        return Root(self.root, Path(self.cache) if self.cache else None)

    @property
    def run(self) -> str:
        """The run's id."""
        return run_id(self.experiment, self.arm_id)

    @property
    def result(self) -> str:
        """Name of the artifact that the finished run leaves."""
        return RunFolder(self.run).result


def find_job(root: Root, run: str) -> Job:
    """The job of a run, here or in a remote root. The root is that of the caller: the run may have moved.

    Raises InputError when there is no such run.
    """
    name = RunFolder(run).file(JOB)
    path = root.path(name)
    if not path.is_file() and root.remote is not None and (content := root.remote.read_if_exists(name)) is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    if not path.is_file():
        raise InputError(f"There is no run {run} under {root.url}: see `fabrating runs` for their names.")
    return Job.read(path)


@dataclass(frozen=True)
class Inputs:
    """The artifacts that a run reads."""

    packed: Artifact
    tokenizer: Artifact
    evaluation: Artifact

    def fingerprints(self, job: Job) -> dict[str, str]:
        """What a result and a checkpoint of this run depend on."""
        return {
            "packed": self.packed.fingerprint,
            "tokenizer": self.tokenizer.fingerprint,
            "evaluation": self.evaluation.fingerprint,
            "arm": job.arm_id,
            "pool": job.pool_id,
        }


def open_inputs(root: Root, job: Job) -> Inputs:
    """Open the packed arm, the pool's tokenizer and the encoded holdout, and check that they belong together.

    Raises InputError when one is missing, when they were made with different tokenizers, or when another holdout than that
    of the evaluation was kept out of the arm.
    """
    training = job.experiment.training
    inputs = Inputs(
        root.open(ArmFolder(job.arm_id).packed(training.sequence_length, training.packing)),
        root.open(PoolFolder(job.pool_id).tokenizer),
        root.open(PoolFolder(job.pool_id).evaluation),
    )
    for artifact in (inputs.packed, inputs.evaluation):
        used = artifact.manifest.inputs.get("tokenizer")
        if used is None:
            raise DamagedError(
                f"{artifact.path} does not say which tokenizer it was made with: delete it and run again."
            )
        if used != inputs.tokenizer.fingerprint:
            raise InputError(
                f"{artifact.name} was made with the tokenizer {used}, but that of the pool {job.pool_id} is "
                f"{inputs.tokenizer.fingerprint}: delete {artifact.path} and prepare it again."
            )
    _check_holdout(root, job, inputs)
    if inputs.packed.facts["vocab_size"] != inputs.evaluation.facts["vocab_size"]:
        raise InputError(
            f"{inputs.packed.name} has {inputs.packed.facts['vocab_size']:,} tokens in its vocabulary, "
            f"{inputs.evaluation.name} {inputs.evaluation.facts['vocab_size']:,}: prepare both again."
        )
    return inputs


def _check_holdout(root: Root, job: Job, inputs: Inputs) -> None:
    """The documents that are evaluated on must be those that the arm's text was kept free of."""
    text = root.find(ArmFolder(job.arm_id).text)
    if text is None:
        raise InputError(
            f"There is no arms/{job.arm_id}/text under {root.url}, which says what was held out: prepare the arm."
        )
    if inputs.packed.manifest.inputs.get("text") != text.fingerprint:
        raise InputError(
            f"{inputs.packed.name} was packed from another text than arms/{job.arm_id}/text: delete {inputs.packed.path} and "
            f"prepare it again."
        )
    kept_out, evaluated = text.inputs.get("holdout"), inputs.evaluation.manifest.inputs.get("holdout")
    if kept_out is None or kept_out != evaluated:
        raise InputError(
            f"The holdout {kept_out} was kept out of {job.arm_id}, but {inputs.evaluation.name} holds the holdout {evaluated}: "
            f"prepare the pool and the arm again."
        )
