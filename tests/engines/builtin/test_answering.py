"""Answers to questions: lm-eval's numbers, whatever the batches, and what is right."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from tasks.engines.builtin.answering import answer, open_questions
from tasks.engines.builtin.distributed import World
from tasks.errors import InputError
from tasks.records.questions import answers_table, read_choices, require_fit, summarize_answers
from tasks.records.scaling import ModelShape
from tasks.spec import Questions, Training
from tasks.tokens.questions import encode_questions
from tasks.tokens.tokenizer import load_tokenizer
from tests.small import POOL, random_model, root_with_tokenizer

LENGTH = 96
TEXT = "the cat sat on the mat 12 times, and 3.50 of (nine) green birds flew; they're gone\nQ: where? A:\n there. "
HARD = [
    {"context": "Q: where is the cat?\nA:", "choices": ["on the mat", "there", "nine green birds"], "answer": 0},
    {"context": "the cat sat on the ", "choices": ["mat", "hat"], "answer": 1},  # white space before the answer
    {"context": "the birds\n\n", "choices": ["flew", "sat", "12"], "answer": 2},
    {"context": "12", "choices": ["12", " 3.50", "\n12"], "answer": 0},
    {"context": "(nine", "choices": [") green", "'re gone", "\u2026"], "answer": 1},
    {"context": "Q: where? A:", "choices": ["\n there", "\n\n12"], "answer": 0},  # `:` and the line feed are one token
    {"context": "", "choices": ["the cat", "12"], "answer": 0},
    {"context": "größer 中文", "choices": ["🤖 nine", "e\u0301"], "answer": 1},
    {"context": "they", "answer": "'re gone and " * 5},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root whose pool has a tokenizer."""
    return root_with_tokenizer(tmp_path_factory.mktemp("root"), TEXT, 310)


@pytest.fixture(scope="module")
def encoded(root, tmp_path_factory):
    """HARD in the pool's tokens."""
    file = tmp_path_factory.mktemp("questions") / "hard.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in HARD))
    return encode_questions(root, POOL, Questions(name="hard", url=str(file)))


@pytest.fixture(scope="module")
def tokenizer(root):
    return load_tokenizer(root.open(f"pools/{POOL}/tokenizer").path)


@pytest.fixture(scope="module")
def model(tokenizer):
    """A model whose every part does something."""
    training = Training(depth=2, sequence_length=LENGTH, window_pattern="L")
    return random_model(ModelShape.of(training, tokenizer.vocab_size))


def answered(model, encoded, batch_tokens=256):
    with torch.no_grad():
        return answer(
            lambda x, y: model(x, y, reduction="none"),
            open_questions(encoded),
            LENGTH,
            batch_tokens,
            World(0, 1, torch.device("cpu")),
        )


def pairs():
    """(context, what lm-eval is given to follow it) of every choice: its tasks put a blank there too."""
    for row in HARD:
        for choice in row.get("choices") or [row["answer"]]:
            blank = "" if not row["context"] or row["context"][-1].isspace() or choice[0].isspace() else " "
            yield row["context"], blank + choice


def test_log_likelihoods_are_those_of_lm_eval(model, encoded, tokenizer):
    pytest.importorskip("lm_eval", reason="pip install 'fabrating[lm-eval]'")
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import TemplateLM

    class Ours(TemplateLM):
        """lm-eval's own split of context and continuation, around our model one sequence at a time."""

        @property
        def eot_token_id(self):
            return tokenizer.bos

        def tok_encode(self, string, add_special_tokens=None, **kwargs):
            return ([] if add_special_tokens is False else [tokenizer.bos]) + tokenizer.encode(string)

        def _loglikelihood_tokens(self, requests, **kwargs):
            found = []
            for _, context, continuation in requests:
                whole = torch.tensor([context + continuation])
                scores = model(whole[:, :-1]).log_softmax(-1)[0, -len(continuation) :]
                taken = scores.gather(-1, whole[0, -len(continuation) :, None]).squeeze(-1)
                found.append((float(taken.sum()), bool((scores.argmax(-1) == whole[0, -len(continuation) :]).all())))
            return found

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

        def generate_until(self, requests, disable_tqdm=False):
            raise NotImplementedError

    own, whole = tokenizer.encode("Q: where? A:"), tokenizer.encode("Q: where? A:\n there")
    assert whole[: len(own)] != own, "a token must lie across the boundary"
    requests = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs())]
    with torch.no_grad():
        theirs = [found for found, _ in Ours().loglikelihood(requests, disable_tqdm=True)]
    table = answered(model, encoded)
    ours = table["log_likelihoods"].combine_chunks().flatten().to_numpy()
    assert len(ours) == len(theirs) == 21
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    places = [row["answer"] for row in HARD[:-1]]
    right = [
        np.argmax(each) == place for each, place in zip(table["log_likelihoods"].to_pylist(), places, strict=False)
    ]
    assert table["right"].to_pylist() == [*right, None]


def test_batches_change_nothing(model, encoded):
    one, many = (answered(model, encoded, size) for size in (1, 4096))
    np.testing.assert_allclose(one["nats"].to_numpy(), many["nats"].to_numpy(), rtol=1e-5)


def test_a_long_context_loses_its_beginning_and_keeps_bos(root, model, tokenizer, tmp_path):
    long = "the cat sat on the mat. " * 40
    (tmp_path / "a.jsonl").write_text(json.dumps({"context": long, "answer": "gone"}) + "\n")
    encoded = encode_questions(root, POOL, Questions(name="long", url=str(tmp_path)))
    context, choice = tokenizer.encode(long.rstrip()), tokenizer.encode(long + "gone")
    following = choice[len(context) :]
    row = [tokenizer.bos, *context[-(LENGTH - len(following)) :], *following]
    with torch.no_grad():
        scores = model(torch.tensor([row[:-1]])).log_softmax(-1)[0, -len(following) :]
    expected = -float(scores.gather(-1, torch.tensor(following)[:, None]).sum())
    assert len(row) == LENGTH + 1
    assert answered(model, encoded)["nats"].to_pylist() == pytest.approx([expected], abs=1e-4)


def test_an_answer_longer_than_a_row_is_refused(encoded):
    longest = max(read_choices(encoded.path / "choices.parquet")["tokens"].to_pylist())
    require_fit(encoded, longest)
    with pytest.raises(InputError, match=f"has {longest} tokens, but a row of the model only {longest - 1}"):
        require_fit(encoded, longest - 1)


def test_the_highest_sum_is_right_or_the_highest_per_character():
    choices = pa.table(
        {
            "question": [0, 0, 1, 2, 2],
            "task": ["a", "a", "b", "a", "a"],
            "cluster": [0, 0, 1, 0, 0],
            "right": [True, False, True, False, True],
            "bytes": [10, 2, 4, 5, 5],
            "tokens": [1] * 5,
            "characters": [10, 2, 4, 5, 5],
        }
    )
    answers = answers_table(np.array([-5.0, -4.0, -3.0, -2.0, -2.0]), choices)
    assert answers["right"].to_pylist() == [False, None, False]  # of equal ones the first
    assert answers["right_normed"].to_pylist() == [True, None, False]
    assert answers["nats"].to_pylist() == [5.0, 3.0, 2.0]
    assert answers["log_likelihoods"].to_pylist() == [[-5.0, -4.0], [-3.0], [-2.0, -2.0]]
    summary = summarize_answers(answers)
    assert summary["bpb"] == pytest.approx(10 / np.log(2) / 19)
    assert (summary["questions"], summary["accuracy"], summary["accuracy_normed"]) == (3, 0.0, 0.5)
