"""Which attention a host takes."""

import pytest
import torch

from tasks.engines.builtin.trial import fastest, trial


def test_another_must_be_clearly_faster_than_cudnn():
    soon = {"fa3": 1.0, "fa4": 1.0, "cudnn": 1.0}
    assert fastest({"fa3": 0.97, "fa4": 0.975, "cudnn": 1.0}, soon) == "fa3"
    assert fastest({"fa3": 0.99, "cudnn": 1.0}, soon) == "cudnn"
    assert fastest({"fa4": 0.0}, soon) == "fa4"
    assert fastest({"cudnn": 0.0}, soon) == "cudnn"


def test_what_starts_late_must_save_more_than_that():
    assert fastest({"fa4": 2.7, "cudnn": 2.9}, {"fa4": 16.0, "cudnn": 0.2}) == "cudnn"
    assert fastest({"fa4": 2.5, "cudnn": 2.9}, {"fa4": 16.0, "cudnn": 0.2}) == "fa4"
    assert fastest({"fa3": 2.7, "fa4": 2.5, "cudnn": 2.9}, {"fa3": 1.0, "fa4": 16.0, "cudnn": 0.2}) == "fa3"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="attention is measured on a GPU")
def test_the_trial_takes_what_is_there_and_says_what_is_not():
    found = trial("auto")
    assert found["taken"] in found["milliseconds"] and "cudnn" in found["milliseconds"]
    assert len(found["left"]) + len(found["milliseconds"]) == 3
    assert found["seconds"].keys() == found["milliseconds"].keys()
    assert trial("cudnn")["taken"] == "cudnn"
