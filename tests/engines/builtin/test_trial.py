"""Which attention a host takes."""

import pytest
import torch

from tasks.engines.builtin.trial import fastest, trial


def test_another_must_be_clearly_faster_than_cudnn():
    assert fastest({"fa3": 0.97, "fa4": 0.975, "cudnn": 1.0}) == "fa3"
    assert fastest({"fa3": 0.99, "cudnn": 1.0}) == "cudnn"
    assert fastest({"fa4": 0.0}) == "fa4"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="attention is measured on a GPU")
def test_the_trial_takes_what_is_there_and_says_what_is_not():
    found = trial("auto")
    assert found["taken"] in found["milliseconds"] and "cudnn" in found["milliseconds"]
    assert len(found["left"]) + len(found["milliseconds"]) == 3
    assert trial("cudnn")["taken"] == "cudnn"
