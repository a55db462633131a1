"""All runs of a comparison have the hardware of the first of them."""

from dataclasses import replace

import pytest

from tasks.errors import InputError, StoreError
from tasks.records.hardware import Hardware, settle
from tasks.records.layout import VerdictFolder
from tasks.spec import Training
from tasks.store.root import Root

POOL = "pool-0123456789"
H100 = Hardware("NVIDIA H100 80GB HBM3", "2.13.0", "13.0", "bf16, fused kernels, cuDNN")


def test_a_run_on_other_hardware_is_refused_and_the_same_goes_on(tmp_path):
    root, training = Root(tmp_path), Training(depth=6)
    settle(root, "top-rand", training, POOL, "top-s1", H100)
    settle(root, "top-rand", training.model_copy(update={"tokens": 9}), POOL, "rand-s1", H100)
    settle(root, "top-rand", training, POOL, "rand-s2", replace(H100, compute=None))
    with pytest.raises(InputError, match=r"hardware of top-s1, .*device NVIDIA H200 instead.*allow: device, cuda\)"):
        settle(root, "top-rand", training, POOL, "rand-s3", replace(H100, device="NVIDIA H200", cuda="12.8"))
    settle(root, "other", training, POOL, "rand-s3", replace(H100, device="NVIDIA H200"))
    settle(root, "top-rand", Training(depth=8), POOL, "top-s9", replace(H100, device="NVIDIA H200"))


def test_the_first_of_two_hosts_decides(azure, tmp_path):
    here, there = (Root(f"az://{azure}/root", tmp_path / name) for name in ("here", "there"))
    settle(here, "top-rand", Training(), POOL, "top-s1", H100)
    with pytest.raises(InputError, match="hardware of top-s1"):
        settle(
            there, "top-rand", Training(), POOL, "rand-s1", replace(H100, compute="bf16, fused kernels, FlexAttention")
        )


def test_a_file_that_its_writer_left_empty_is_no_answer(tmp_path):
    root, training = Root(tmp_path), Training()
    path = root.path(VerdictFolder("top-rand").hardware(training, POOL))
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(StoreError, match="is empty: delete it"):
        settle(root, "top-rand", training, POOL, "top-s1", H100)
