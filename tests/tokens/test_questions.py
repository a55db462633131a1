"""Questions: parquet and JSON lines, where context and answer are cut, and a sentence for each row that is none."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.records.questions import read_choices
from tasks.spec import Questions
from tasks.tokens.questions import boundary, encode_questions
from tasks.tokens.tokenizer import load_tokenizer
from tests.small import POOL, root_with_tokenizer

FEW = [
    {"question": "The cat sat on the", "choices": ["mat", "hat", "cat"], "answer": 0, "task": "cats"},
    {"context": "12 times 2 is", "answer": "24", "task": "sums"},
    {"context": "größer als   ", "choices": ["klein", "groß"], "answer": "groß", "task": "cats"},
]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A root whose pool has a tokenizer."""
    return root_with_tokenizer(tmp_path_factory.mktemp("root"))


def encode(root, url, **fields):
    return encode_questions(root, POOL, Questions(name="few", url=str(url), **fields))


def written(path, rows):
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return path


def decoded(root, made):
    """(context, choice, right) of every choice, read back from tokens."""
    tokens = np.fromfile(made.path / "tokens.bin", "<u2")
    reference = load_tokenizer(root.open(f"pools/{POOL}/tokenizer").path)
    rows = []
    for row in read_choices(made.path / "choices.parquet").to_pylist():
        start, end = row["offset"], row["offset"] + row["context"]
        choice = reference.decode(tokens[end : end + row["tokens"]])
        rows.append((reference.decode(tokens[start:end]), choice, row["right"]))
    return rows


def test_json_lines_and_parquet_give_the_same_choices(root, tmp_path):
    lines = encode(root, written(tmp_path / "few.jsonl", FEW))
    assert decoded(root, lines) == [
        ("The cat sat on the", " mat", True),
        ("The cat sat on the", " hat", False),
        ("The cat sat on the", " cat", False),
        ("12 times 2 is", " 24", True),
        ("größer als", "   klein", False),
        ("größer als", "   groß", True),
    ]
    table = read_choices(lines.path / "choices.parquet")
    assert table["question"].to_pylist() == [0, 0, 0, 1, 2, 2]
    assert table["cluster"].to_pylist() == [0, 0, 0, 1, 0, 0]
    assert table["bytes"].to_pylist() == [3, 3, 3, 2, 5, 5] and table["characters"].to_pylist() == [3, 3, 3, 2, 5, 4]
    assert lines.facts["questions"] == 3 and lines.facts["with_choices"] == 2 and lines.facts["tasks"] == 2
    rows = [
        {
            "context": each.get("context") or each["question"],
            "choices": each.get("choices"),
            "answer": each["choices"][each["answer"]] if each["answer"] == 0 else each["answer"],
            "task": each["task"],
            "id": number,
        }
        for number, each in enumerate(FEW)
    ]
    (tmp_path / "folder").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "folder" / "few.parquet")
    assert decoded(root, encode(root, tmp_path / "folder")) == decoded(root, lines)


def test_questions_without_tasks_lie_in_blocks_of_neighbours(root, tmp_path):
    rows = [{"context": f"the {i}", "answer": "cat"} for i in range(130)]
    made = encode(root, written(tmp_path / "a.jsonl", rows))
    clusters = read_choices(made.path / "choices.parquet")["cluster"].to_numpy()
    assert np.bincount(clusters).tolist() == [3] * 43 + [1]
    few = encode(root, tmp_path / "a.jsonl", questions=2)
    assert few.facts["questions"] == 2 and few.name != made.name


def test_a_blank_stands_between_unless_white_space_does():
    assert boundary("a b", "c") == ("a b", " c")
    assert boundary("a b \n", "c") == ("a b", " \nc")
    assert boundary("a b", "\nc") == ("a b", "\nc")
    assert boundary("", "c") == ("", "c")


OK = {"context": "the cat", "choices": ["sat", "mat"], "answer": 1}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("[1]", "Line 2 of .*a.jsonl is not a JSON object: write one per line."),
        ("{", "Line 2 of .*a.jsonl is not JSON"),
        pytest.param("[" * 100_000, "Line 2 of .*a.jsonl is not JSON", id="nested too deep"),
        ({"contxt": "x", "answer": "y"}, "Line 2 of .*a.jsonl has no 'context' or 'question': rename 'contxt'"),
        ({"context": "x", "Answers": "y"}, "has no 'answer': rename 'Answers', which is nearest"),
        ({"context": "x", "gold": "y"}, "has no 'answer': it has context, gold"),
        (OK | {"context": 3}, "Line 2 of .*a.jsonl: context is 3: it must be a text"),
        (OK | {"choices": ["sat"]}, r"choices is \['sat'\]: it must be a list of 2 to 64 texts"),
        (OK | {"choices": ["sat", ""]}, r"choices\[1\] is '': it must be a text, not blank"),
        (OK | {"choices": ["sat", "sat"]}, "choices holds 'sat' twice"),
        (OK | {"choices": ["sat", " sat"]}, "choices holds 'sat' twice"),
        (OK | {"answer": 2}, "answer is 2: the 2 choices are numbered 0 to 1"),
        (OK | {"answer": True}, "answer is True: it must be one of the choices, or its place from 0"),
        (
            OK | {"answer": "sart"},
            "answer is 'sart': it must be one of the choices, such as 'sat', or its place from 0",
        ),
        ({"context": "x", "answer": 1}, "answer is 1: it must be a text, not blank, or its place with choices"),
        (OK | {"task": 7}, "task is 7: it must be a text of 1 to 200 characters"),
        (OK | {"answer": "y" * 2001, "choices": None}, "answer has 2,001 characters: shorten it to 2,000"),
    ],
)
def test_a_row_that_is_no_question_is_named_with_its_field(root, tmp_path, row, message):
    line = row if isinstance(row, str) else json.dumps(row)
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(OK)}\n{line}\n")
    with pytest.raises(InputError, match=message) as raised:
        encode(root, tmp_path)
    assert "\n" not in str(raised.value)


def test_a_parquet_file_without_the_columns_is_named(root, tmp_path):
    pq.write_table(pa.table({"context": ["x"], "answr": ["y"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has no 'answer': rename 'answr', which is nearest"):
        encode(root, tmp_path)
    pq.write_table(pa.table({"context": ["x"], "answer": [None], "choices": [["a", "b"]]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"Row 1 of .*a\.parquet: answer is None"):
        encode(root, tmp_path)


def test_no_questions_at_all_are_refused(root, tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(InputError, match="holds no questions"):
        encode(root, tmp_path)


def test_a_choice_that_merges_with_the_end_of_its_context_gets_the_merged_token(tmp_path):
    r"""`)` and a line's end are one token, so `"})` alone is two tokens, and one with it: nothing would be left for the answer."""
    root = root_with_tokenizer(tmp_path / "root", 'a)\nb)\nc)\ncat "})\n12 the ', 275)
    made = encode(root, written(tmp_path / "merged.jsonl", [{"context": 'cat "})\n', "answer": "1"}]))
    assert decoded(root, made) == [("cat", ' "})\n1', True)]
    assert read_choices(made.path / "choices.parquet")["bytes"].to_pylist() == [1]
