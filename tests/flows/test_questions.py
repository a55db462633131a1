"""What is wrong with questions is said before anything is trained."""

import json

import pytest

from flows.comparison import Hands, encode_asked
from flows.sequence import Steps
from tasks.errors import InputError
from tasks.spec import Arm, Pool, Questions, Training
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec
from tests.small import POOL, root_with_tokenizer


@pytest.fixture
def root(tmp_path):
    """A root whose pool has a tokenizer, and no runs."""
    return root_with_tokenizer(tmp_path / "root")


def test_a_bad_row_too_few_and_an_answer_that_no_row_holds_are_refused_when_the_runs_are_planned(root, tmp_path):
    file = tmp_path / "exam.jsonl"
    arms = [Arm(), Arm(name="rand", select="random")]
    training = Training(sequence_length=64, packing="split")
    spec = ComparisonSpec("x", Pool(), arms, [1], training, questions=[Questions(name="exam", url=str(file))])
    plan, hands = ComparisonPlan(spec, POOL, ()), Hands(root, Steps())
    line = json.dumps({"context": "the cat", "answer": "sat" * 9}) + "\n"
    file.write_text(8 * line)
    _, (name,) = encode_asked(root, plan, hands)
    assert root.find(f"pools/{POOL}/questions/{name}").facts["questions"] == 8
    file.write_text(7 * line)
    with pytest.raises(InputError, match="There are 7 questions exam: a verdict needs at least 8"):
        encode_asked(root, plan, hands)
    file.write_text(json.dumps({"context": "the cat", "answer": "xyz" * 30}) + "\n")
    with pytest.raises(
        InputError, match=r"An answer of the questions exam-\w+ has 91 tokens, but a row of the model only 64"
    ):
        encode_asked(root, plan, hands)
    file.write_text(json.dumps({"context": "the cat", "answer": 7}) + "\n")
    with pytest.raises(InputError, match=r"Line 1 of .*exam.jsonl: answer is 7"):
        encode_asked(root, plan, hands)
