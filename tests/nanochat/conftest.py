"""A small tokenizer, small texts and, where one is given, a checkout of nanochat with an environment that runs it.

NANOCHAT_CHECKOUT      today's upstream (see tasks/nanochat/contract.py for commits)
NANOCHAT_CHECKOUT_OLD  one from before 2026-02-18
NANOCHAT_PYTHON        the interpreter of an environment with nanochat's dependencies (default: this one)
"""

import argparse
import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from tasks.nanochat import contract

VOCAB = 512


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Paragraphs of real prose and code: docstrings of the standard library."""
    source = Path(argparse.__file__).parent
    paragraphs = []
    for name in (
        "argparse",
        "asyncio/events",
        "asyncio/tasks",
        "decimal",
        "random",
        "statistics",
        "textwrap",
        "typing",
    ):
        paragraphs += (source / f"{name}.py").read_text().split("\n\n")
    return [textwrap.dedent(paragraph) for paragraph in paragraphs if len(paragraph) > 80]


@pytest.fixture(scope="session")
def tokenizer(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> Path:
    """The folder of a pool's tokenizer artifact: tokenizer.json and token_bytes.npy."""
    folder = tmp_path_factory.mktemp("tokenizer")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(contract.PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    bpe.decoder = decoders.ByteLevel()
    size = VOCAB - len(contract.SPECIAL_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.add_special_tokens(list(contract.SPECIAL_TOKENS))
    bpe.save(str(folder / "tokenizer.json"))
    lengths = [len(bpe.id_to_token(number)) for number in range(size)] + [0] * len(contract.SPECIAL_TOKENS)
    np.save(folder / "token_bytes.npy", np.array(lengths, np.int32))
    return folder


def checkout(variable: str) -> Path:
    """The checkout that an environment variable names; the test skips with a reason where there is none."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} names no checkout of nanochat")
    return Path(os.environ[variable])


@pytest.fixture(scope="session")
def upstream() -> Path:
    return checkout("NANOCHAT_CHECKOUT")


@pytest.fixture(scope="session")
def old_upstream() -> Path:
    return checkout("NANOCHAT_CHECKOUT_OLD")


@pytest.fixture(scope="session")
def nanochat_python() -> str:
    return os.environ.get("NANOCHAT_PYTHON", sys.executable)


@pytest.fixture(scope="session")
def run_upstream(nanochat_python: str) -> Callable[..., dict]:
    """Run a program inside nanochat's own environment and checkout; its last line of output is JSON."""

    def run(source: Path, base: Path, program: str, *arguments: str) -> dict:
        environment = {**os.environ, contract.BASE_VARIABLE: str(base), "OMP_NUM_THREADS": "1", "PYTHONPATH": ""}
        command = [nanochat_python, "-c", textwrap.dedent(program), *arguments]
        done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.strip().splitlines()[-1])

    return run
