"""A wrong option, field or share is answered with the nearest right one, its type and an example."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from infra.cli import terminal
from infra.cli.options import parse
from tasks.errors import InputError
from tasks.spec import Arm, Experiment, Pool, Training


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--shar", "3"), "There is no option --shar: --share takes a number, such as --share 0.165."),
        (("--share", "16.5"), "share = 16.5 cannot be used: it is a part of 1, did you mean 0.165?"),
        (
            ("--share", ".1", "--name", "--share", "--share=.2"),
            "--share is given twice, as '.1' and '.2': give it once.",
        ),
        (
            ("--set", "vocab_size=512", "--set", "vocab_size=1024"),
            "--set vocab_size is given twice, as 512 and 1024: give it once.",
        ),
        (("--set", 'score={"clear": 1, "clear": 2}'), "clear is given twice, as 1 and 2: give it once."),
    ],
)
def test_the_command_names_what_is_meant(arguments: tuple[str, ...], said: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "infra.cli", "prepare", "x", *arguments], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, f"fabrating: {said}\n")


@pytest.mark.parametrize(
    ("models", "given", "said"),
    [
        ((Pool, Arm), "vocabsize=3", "there is no field 'vocabsize': vocab_size is a whole number, such as 32768"),
        ((Pool, Arm), "selct=top", "select is one of top, bottom, .*subset, such as top"),
        ((Training,), "batch_token=3", "batch_tokens is a whole number, such as 1"),
        ((Training,), "zzzz=3", "there is no field 'zzzz': take one of depth, tokens"),
    ],
)
def test_a_field_that_no_model_has(models: tuple[type, ...], given: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse([given], (), *models)


def test_a_field_that_is_not_there_is_told_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit), terminal.plain_errors():
        Experiment(arm={"shar": 1})
    said = "arm.shar cannot be used: there is no field 'shar': share is a number, such as 0.165."
    assert capsys.readouterr().err == f"fabrating: {said}\n"
    with pytest.raises(ValidationError, match=r"did you mean 0\.02\?"):
        Pool(holdout_fraction=2)
    with pytest.raises(ValidationError, match=r"less than or equal to 0\.5"):
        Pool(holdout_fraction=60)
