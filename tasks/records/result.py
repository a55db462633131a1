"""What a finished run leaves beside its scores: typed facts, the same from both engines, and text samples.

The facts stand twice: in the artifact's manifest, where everything reads them, and with the run's names in `summary.json`,
for people who copy a result elsewhere.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypedDict

from tasks.errors import DamagedError
from tasks.records.job import Job
from tasks.records.layout import SAMPLES, SUMMARY
from tasks.store.artifact import Manifest, Work


class Sample(TypedDict):
    """A holdout document's beginning, and what the model wrote after it."""

    document: int
    score: float | None
    """None for a document without a rating."""
    prompt: str
    text: str


@dataclass(frozen=True, kw_only=True)
class ScoreFacts:
    """What any scores of a checkpoint say: bits per byte, and how far it was trained."""

    FORMAT: ClassVar[int] = 1
    bpb: float
    bpb_by_decile: Sequence[float | None]
    """Lowest scores first; None for a decile without documents."""
    steps: int
    tokens: int
    """Trained."""
    code: str
    """Version of FabRating."""
    format: int = FORMAT
    """Facts without it are of format 1."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """The facts in an artifact's manifest. Raises DamagedError when they are of another format or incomplete."""
        known = {field.name: manifest.facts[field.name] for field in fields(cls) if field.name in manifest.facts}
        found = known.get("format", cls.FORMAT)
        missing = [field.name for field in fields(cls) if field.name not in known and field.default is MISSING]
        if found != cls.FORMAT or missing:
            problem = f"lacks {', '.join(missing)}" if missing else f"has format {found!r} instead of {cls.FORMAT}"
            raise DamagedError(
                f"The result {manifest.name} {problem}: use the version of FabRating that wrote it ({manifest.code}), or "
                f"delete it and run again."
            )
        return cls(**known)

    def to_facts(self) -> dict[str, Any]:
        """As a manifest keeps them: what is unknown is left out."""
        return {key: value for key, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class TrainedFacts:
    """What an engine says of a training that it has finished."""

    steps: int
    tokens: int
    """Trained."""
    rows: int
    """Packed rows that were read, each as often as `epochs` says."""
    rows_left: int
    """Packed rows that the budget does not take, among them those that would make a last, incomplete batch."""
    batch_tokens: int
    parameters: int
    device: str
    """The GPU's name, or cpu."""
    compute: str
    """Device, precision, kernels and attention path, or nanochat's commit and PyTorch's version."""
    torch: str | None = None
    """Version of PyTorch, with its build. Unknown in older results, as are the CUDA version and those of the code."""
    cuda: str | None = None
    """Version of CUDA that PyTorch was built for, or "none"."""
    trained_documents: int | None = None
    """What was read of the arm, here and in the next five; see `packed.TrainedText`. Unknown in older results."""
    trained_bytes: int | None = None
    text_share: float | None = None
    mean_score: float | None = None
    arm_mean_score: float | None = None
    epochs: int | None = None
    commit: str | None = None
    """Of nanochat."""
    scored_by: str = "builtin"
    """Whose forward pass gave the scores: builtin or nanochat."""
    bpb_nanochat: float | None = None
    """By nanochat's own forward pass."""


@dataclass(frozen=True, kw_only=True)
class RunFacts(TrainedFacts, ScoreFacts):
    """What a finished run is."""

    engine: str = "builtin"
    depth: int
    sequence_length: int
    gpus: int
    seed: int
    wall_seconds: float
    """Of all attempts together."""
    training_version: int | None = None
    """See `code.TRAINING_VERSION`."""
    code_commit: str | None = None
    """Of FabRating, if it ran from a checkout."""
    tokens_per_second: float | None = None
    data_wait: float | None = None
    """Part of a step in which the device waited for rows."""
    mfu: float | None = None
    peak_memory_bytes: int | None = None


def write_facts(work: Work, job: Job, facts: ScoreFacts) -> None:
    """Add the facts to an artifact in the making, and `summary.json`, which says whose they are, too."""
    work.facts.update(facts.to_facts())
    _write_json(work, SUMMARY, {"run": job.run, "arm": job.arm_id, "pool": job.pool_id, **work.facts})


def write_samples(work: Work, samples: Sequence[Sample]) -> None:
    """Add `samples.json` to an artifact in the making."""
    _write_json(work, SAMPLES, list(samples))


def read_samples(path: Path) -> list[Sample]:
    """The samples in a result's `samples.json`."""
    samples: list[Sample] = json.loads(path.read_bytes())
    return samples


def _write_json(work: Work, name: str, content: Mapping[str, Any] | Sequence[Any]) -> None:
    work.temporary(name).write_text(json.dumps(content, indent=1) + "\n")
    work.finish(name)
