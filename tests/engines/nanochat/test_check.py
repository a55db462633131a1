"""The check knows the commits it was written for, and names what another one changed."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tasks.engines.nanochat import contract
from tasks.engines.nanochat.check import HOOKED, differences, fingerprint, identify, require
from tasks.errors import InputError


@pytest.fixture
def source(upstream: Path, tmp_path: Path) -> Path:
    """A copy of today's upstream that a test may change."""
    for name in HOOKED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(upstream / name, tmp_path / name)
    return tmp_path


def change(source: Path, name: str, before: str, after: str) -> None:
    text = (source / name).read_text()
    assert before in text
    (source / name).write_text(text.replace(before, after))


def test_todays_upstream_fits_and_is_known(source: Path) -> None:
    assert differences(source) == []
    assert require(source, allow_unknown=False).known == contract.PINNED


def test_one_from_before_february_2026_fits_and_is_known(old_upstream: Path) -> None:
    assert differences(old_upstream) == []
    known = require(old_upstream, allow_unknown=False).known
    assert known is not None and known.date < "2026-02-18"


CHANGES = [
    ("nanochat/loss_eval.py", "batches, steps, token_bytes):", "batches, count, token_bytes):", "evaluate_bpb in"),
    ("nanochat/checkpoint_manager.py", "def save_checkpoint(", "def store_checkpoint(", "no function save_checkpoint"),
    (
        "nanochat/common.py",
        "def compute_init(device_type=",
        "def compute_init(kind=",
        r"compute_init in .* takes \(kind\)",
    ),
    (
        "nanochat/dataset.py",
        "def list_parquet_files(data_dir=None, ",
        "def list_parquet_files(folder=None, ",
        "list_parquet_files",
    ),
    ("nanochat/dataloader.py", "pf.num_row_groups", "pf.metadata.num_row_groups", "asks parquet files for .*metadata"),
    ("nanochat/dataloader.py", "pq.ParquetFile(filepath)", "pq.ParquetDataset(filepath)", "ParquetDataset"),
    ("nanochat/dataloader.py", "import list_parquet_files", "import list_files", "does not import list_parquet_files"),
    ("nanochat/gpt.py", "loss_reduction", "reduction", "GPT.forward"),
    ("nanochat/tokenizer.py", '"<|bos|>",', '"<|bos|>", "<|pad|>",', "SPECIAL_TOKENS"),
    ("nanochat/tokenizer.py", "{1,2}", "{1,3}", "SPLIT_PATTERN"),
    (
        "nanochat/optim.py",
        "import torch\n",
        "import torch\ntorch.backends.cuda.matmul.allow_tf32 = True\n",
        "optim.py sets the precision",
    ),
    ("scripts/base_train.py", '"--target-param-data-ratio"', '"--data-ratio"', "no option --target-param-data-ratio"),
    ("scripts/base_train.py", "Validation bpb: ", "val: ", "prints no line .*Validation bpb"),
    ("scripts/base_train.py", " | tok/sec: ", " | tokens/s: ", "prints no line .*tok/sec"),
    ("scripts/base_train.py", "        save_checkpoint(", "        write_checkpoint(", "no training loop"),
    (
        "scripts/base_train.py",
        "save_checkpoint, load_checkpoint",
        "save_checkpoint, load",
        "does not import load_checkpoint",
    ),
]


@pytest.mark.parametrize(("name", "before", "after", "words"), CHANGES)
def test_each_change_to_a_hooked_place_is_named(source: Path, name: str, before: str, after: str, words: str) -> None:
    change(source, name, before, after)
    with pytest.raises(InputError, match=words) as error:
        require(source, allow_unknown=True)
    assert contract.PINNED.commit in str(error.value)


def test_a_missing_file_is_named(source: Path) -> None:
    (source / "nanochat/loss_eval.py").unlink()
    assert "nanochat/loss_eval.py is missing" in differences(source)


def test_another_commit_that_fits_is_refused_by_name_unless_allowed(source: Path) -> None:
    change(source, "nanochat/gpt.py", "softcap = 15", "softcap = 16")
    for words in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "other"],
    ):
        subprocess.run(["git", "-C", str(source), *words], check=True)
    commit = subprocess.check_output(["git", "-C", str(source), "rev-parse", "HEAD"], text=True).strip()
    assert differences(source) == []
    with pytest.raises(InputError, match=f"commit {commit}.*{contract.ALLOW_VARIABLE}=1"):
        require(source, allow_unknown=False)
    assert require(source, allow_unknown=True).name == commit


def test_comments_and_layout_change_nothing(source: Path) -> None:
    change(source, "nanochat/gpt.py", "import torch\n", "# a remark\nimport torch  # and another\n\n\n")
    assert identify(source).known == contract.PINNED


def test_a_folder_that_is_no_checkout_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no checkout of nanochat"):
        require(tmp_path, allow_unknown=True)


def test_code_that_is_no_python_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts/base_train.py").write_text("while True print")
    with pytest.raises(InputError, match=r"base_train.py cannot be parsed"):
        require(tmp_path, allow_unknown=True)


def test_the_fingerprint_is_of_every_hooked_file(tmp_path: Path) -> None:
    for name in HOOKED:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("value = 1\n")
    whole = fingerprint(tmp_path)
    for name in HOOKED:
        (tmp_path / name).write_text("value = 2\n")
        assert fingerprint(tmp_path) != whole
        (tmp_path / name).write_text("value=1 # the same\n")
        assert fingerprint(tmp_path) == whole
