"""All runs of a comparison have the hardware of the first of them."""

from dataclasses import replace

import pytest

from tasks.errors import InputError, StoreError
from tasks.records.hardware import Hardware, comparable, settle
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


CUDNN = "cuda, bf16 products, fused kernels, attention by cuDNN"
WAS = f"{CUDNN} (full) and FlexAttention (windows); Flash Attention 3 is not available (ModuleNotFoundError)"
FA4 = "cuda, bf16 products, fused kernels, attention by Flash Attention 4"


def test_hosts_that_took_different_attention_are_refused_in_one_sentence(tmp_path):
    root, training = Root(tmp_path), Training(depth=6)
    settle(root, "top-rand", training, POOL, "top-s1", replace(H100, compute=CUDNN))
    with pytest.raises(InputError) as refused:
        settle(root, "top-rand", training, POOL, "rand-s1", replace(H100, compute=FA4))
    assert f"would have compute {FA4} instead of {CUDNN}: keep hosts of one kind" in str(refused.value)
    assert str(refused.value).endswith("allow the difference by name (allow: compute).")


def test_a_comparison_goes_on_where_attention_is_the_same_by_another_name(tmp_path):
    root, full = Root(tmp_path), Training(depth=6, window_pattern="L")
    for run, compute in (("top-s1", WAS), ("rand-s1", CUDNN), ("top-s2", f"{CUDNN}; Flash Attention 3 is wrong")):
        settle(root, "top-rand", full, POOL, run, replace(H100, compute=compute))
    settle(root, "top-rand", Training(depth=6), POOL, "top-s1", replace(H100, compute=WAS))
    with pytest.raises(InputError, match="FlexAttention"):
        settle(root, "top-rand", Training(depth=6), POOL, "rand-s1", replace(H100, compute=CUDNN))
    assert comparable(f"{WAS}, then {CUDNN}", "L") == CUDNN
    assert comparable(f"{CUDNN}, then {FA4}", "L") == f"{CUDNN}, then {FA4}"


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
