"""The job file: written once, read by every rank, found again by a run's name."""

import json

import pytest
from obstore.store import LocalStore

from tasks.errors import InputError
from tasks.records.job import Job, find_job
from tasks.spec import Experiment
from tasks.store.blobs import Blobs
from tasks.store.root import Root
from tasks.store.urls import parse_url


def test_a_job_is_read_as_it_was_written_here_and_in_a_remote_root(tmp_path):
    root = Root(tmp_path / "root")
    job = Job.of(root, Experiment(seed=3), "pool-0", "arm-0")
    job.write(tmp_path / "container" / "runs" / job.run / "job.json")
    with pytest.raises(InputError, match=f"There is no run {job.run}"):
        find_job(root, job.run)
    root.remote = Blobs(parse_url("az://container"), LocalStore(tmp_path / "container"))
    assert find_job(root, job.run) == job
    assert job.open_root().url == Root(tmp_path / "root").url


def test_a_job_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "job.json"
    path.write_text('{"root": "x"}')
    with pytest.raises(InputError, match=r"is not a valid job file \(.*\)\. Start the run again\."):
        Job.read(path)
    with pytest.raises(InputError, match="cannot be read"):
        Job.read(tmp_path / "none.json")


def test_a_job_of_another_format_is_refused_and_one_without_is_read(tmp_path):
    path = tmp_path / "job.json"
    Job.of(Root(tmp_path), Experiment(), "pool-0", "arm-0").write(path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"format": 1}))
    with pytest.raises(InputError, match=r"is not a valid job file \(format: Input should be 2\)"):
        Job.read(path)
    del content["format"]
    path.write_text(json.dumps(content))
    assert Job.read(path).format == 2
