"""Experiments as files: the example holds every field and reads as it stands, and each fault is a sentence with its line."""

import re

import pytest

from tasks.errors import InputError
from tasks.spec.written import example, read
from tasks.verdict.form import EXAMPLE, ComparisonForm


@pytest.fixture
def written(tmp_path):
    def write(text):
        (tmp_path / "experiment.yaml").write_text(text)
        return tmp_path / "experiment.yaml"

    return write


def test_the_example_reads_as_it_stands_and_with_every_default_spelled_out(written):
    text = example(EXAMPLE, "An experiment")
    assert read(written(text), ComparisonForm) == EXAMPLE
    spelled_out = re.sub(r"^( *)#(?=[a-z])", r"\1", text, flags=re.MULTILINE)
    assert len(spelled_out) < len(text) - 50
    assert read(written(spelled_out), ComparisonForm) == EXAMPLE
    stopping = re.sub(r"^#  #?(?=\w+:)", "  ", text, flags=re.MULTILINE).replace("#stop:", "stop:")
    stopping = stopping.replace("replicates: 4", "replicates: null")
    assert read(written(stopping), ComparisonForm).stop.max_replicates == 8
    for model in (ComparisonForm, *(type(part) for part in (EXAMPLE.data, EXAMPLE.train, EXAMPLE.arms[0]))):
        assert all(re.search(rf"^ *#?{name}:", text, re.MULTILINE) for name in model.model_fields)


FAULTS = {
    "name: a\ntrain:\n  dept: 6\n": "line 3: train.dept cannot be used: there is no field 'dept': depth is a whole number, such as 20.",
    "name: a\n\nname: b\n": "line 3: name is given in line 1, too: leave one out.",
    "train: {depth: six}": "line 1: train.depth = 'six' cannot be used: input should be a valid integer, unable to parse",
    "train:\n  tokens: 3\n  tokens_per_parameter: 2\n": "line 1: train cannot be used: tokens 3 and tokens_per_parameter 2",
    "\ntarget: most": "line 2: target = 'most' cannot be used: input should be 'all', 'lower half' or 'upper half', or is not a target: outside/ and the name of texts, or questions/ and the name of questions.",
    "texts:\n  - name: wiki\n": "line 2: texts.0.url is missing: give it.",
    "questions:\n  - {name: wiki, ulr: x}\n": "line 2: questions.0.ulr cannot be used: there is no field 'ulr': url is a text, such as bundle.",
    "questions: bundel": "line 1: questions = 'bundel' cannot be used: input should be 'bundle'.",
    "arms: [{name: a}]": "line 1: arms cannot be used: give at least 2, not 1.",
    "arms: []": "line 1: arms cannot be used: give at least 2, not 0.",
    "data: {source: 'https://a.blob.core.windows.net/raw?sv=1&sig=SECRET'}": "line 1: data.source: The URL .* carries a signature",
    "train: {tokens: 020000}": "line 1: train.tokens = 020000 is a number in base 8 or 60 in YAML: write it in base 10, or a text in quotes.",
    "margin: 0:30.5": "line 1: margin = 0:30.5 is a number in base 8 or 60 in YAML",
    "train:\n  tokens: 1:30": "line 2: train.tokens = 1:30 is a number in base 8 or 60 in YAML",
    "arms: [1\n": "line 2 is no YAML: expected ',' or ']'",
    "a: &a [*a]": "line 1: a.0 holds itself: leave out the alias.",
    "name: \x01": "is no YAML: a character cannot stand there.",
    "- name": "holds no fields: write NAME: VALUE lines",
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_fault_is_a_sentence_with_its_line(written, text):
    with pytest.raises(InputError, match=re.escape(FAULTS[text]).replace(r"\.\*", ".*")) as raised:
        read(written(text), ComparisonForm)
    assert "SECRET" not in str(raised.value) and len(str(raised.value).splitlines()) == 1


def test_every_fault_is_said_in_the_order_of_the_file(written, tmp_path):
    with pytest.raises(InputError) as raised:
        read(written("replicats: 3\nname: A\narms: [{shar: 1}, {share: 2}]\n"), ComparisonForm)
    places = re.findall(r"experiment.yaml, line (\d): ([a-z0-9.]+)", str(raised.value))
    assert places == [("1", "replicats"), ("2", "name"), ("3", "arms.0.shar"), ("3", "arms.1.share")]
    with pytest.raises(InputError, match=r"nowhere cannot be read \(No such file or directory\).*fabrating init"):
        read(tmp_path / "nowhere", ComparisonForm)
