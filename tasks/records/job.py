"""What a trainer process is told: one small JSON file, the same for every rank and every attempt."""

from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from tasks.errors import InputError
from tasks.records.layout import JOB, RunFolder, run_id
from tasks.records.record import first_fault
from tasks.spec import Experiment, Spec
from tasks.store.artifact import write_atomic
from tasks.store.root import Root

DONE, FAILED, INPUT, BUSY, SUPERSEDED, DISK, RESUME, DENIED = 0, 1, 65, 69, 70, 74, 75, 77
"""Exit status of a trainer process. RESUME: it was asked to stop and saved a checkpoint to resume from. SUPERSEDED: another host
has taken the run over. DISK: nothing can be written. DENIED: a store refuses the credential."""


class Job(Spec):
    """One training run: which experiment, on which arm, under which root. `cache`: local folder of a remote root.

    `run`: its id, which another version of the code would derive otherwise. `comparison`: the one whose runs must have the same
    hardware, if any.
    """

    format: Literal[2] = 2
    run: str
    root: str
    cache: str | None = None
    experiment: Experiment
    pool_id: str
    arm_id: str
    comparison: str | None = None

    @classmethod
    def of(cls, root: Root, experiment: Experiment, pool_id: str, arm_id: str, comparison: str | None = None) -> "Job":
        return cls(
            run=run_id(experiment, arm_id),
            root=root.url,
            cache=str(root.folder.parent) if root.remote is not None else None,
            experiment=experiment,
            pool_id=pool_id,
            arm_id=arm_id,
            comparison=comparison,
        )

    @classmethod
    def read(cls, path: Path) -> "Job":
        """Parse a job file. Raises InputError when it is missing or not valid."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"The job file {path} cannot be read ({error}): give the path of a job.json.") from error
        except ValidationError as error:
            raise InputError(f"{path} is not a valid job file ({first_fault(error)}). Start the run again.") from error

    def write(self, path: Path) -> None:
        write_atomic(path, self.model_dump_json(indent=1))

    def open_root(self) -> Root:
        return Root(self.root, Path(self.cache) if self.cache else None)

    @property
    def result(self) -> str:
        """Name of the artifact that the finished run leaves."""
        return RunFolder(self.run).result


def find_job(root: Root, run: str) -> Job:
    """The job of a run, here or in a remote root. Use your own root with it, not the job's: the run may have moved.

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
