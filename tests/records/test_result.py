"""The facts of a finished run: in the manifest, read back as what they were."""

import json

import pytest

from tasks.errors import DamagedError
from tasks.records.job import Job
from tasks.records.result import RunFacts, Sample, ScoreFacts, read_samples, write_facts, write_samples
from tasks.spec import Experiment
from tasks.store.root import Root

FACTS = RunFacts(
    bpb=1.5,
    bpb_by_decile=[1.0, None, *[2.0] * 8],
    steps=10,
    tokens=5_120,
    code="1.0",
    rows=80,
    rows_left=3,
    batch_tokens=512,
    parameters=1_000,
    device="cpu",
    compute="cpu, fp32",
    depth=2,
    sequence_length=64,
    gpus=1,
    seed=1,
    wall_seconds=3.5,
)


@pytest.fixture
def built(tmp_path):
    """A result with the facts, less those named."""

    def build(*missing, **changes):
        root = Root(tmp_path)
        job = Job.of(root, Experiment(), "pool-0", "arm-0")

        def make(work):
            write_facts(work, job, FACTS)
            write_samples(work, [Sample(document=1, score=0.5, prompt="a", text="b")])
            work.facts.update(changes)
            for name in missing:
                del work.facts[name]

        return root.build(job.result, make, spec={})

    return build


def test_facts_and_samples_are_read_as_they_were_written(built):
    result = built()
    assert RunFacts.of(result.manifest) == FACTS
    assert ScoreFacts.of(result.manifest).steps == 10
    assert "mfu" not in result.facts, "what is unknown is left out"
    summary = json.loads((result.path / "summary.json").read_text())
    assert (summary["arm"], summary["pool"], summary["bpb"], summary["format"]) == ("arm-0", "pool-0", 1.5, 1)
    assert read_samples(result.path / "samples.json")[0]["text"] == "b"


def test_facts_of_before_the_format_field_are_read(built):
    assert RunFacts.of(built("format", "engine", "scored_by").manifest) == FACTS


@pytest.mark.parametrize(
    ("missing", "changes", "sentence"),
    [
        (["steps"], {}, "lacks steps: use the version"),
        ([], {"format": 2}, "has format 2 instead of 1: use the version"),
    ],
)
def test_facts_of_another_format_or_incomplete_ones_are_refused(built, missing, changes, sentence):
    with pytest.raises(DamagedError, match=sentence):
        RunFacts.of(built(*missing, **changes).manifest)
