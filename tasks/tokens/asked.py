"""Questions as people keep them, Parquet or JSON lines, read row by row: an error names row and field."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.store.blobs import Blob, Blobs
from tasks.tokens.tokenizer import replace_surrogates

KINDS = (".parquet", ".jsonl")
BUNDLE_FILE = Path(__file__).with_name("bundle.jsonl")
"""The questions that FabRating ships, which `python -m benchmarks.questions` makes."""
FIELDS = ("context", "question", "answer", "choices", "task")
Refusal = Callable[[str, str], InputError]
"""Of a row: what is wrong with a field."""
CONTEXT_CHARACTERS, ANSWER_CHARACTERS, TASK_CHARACTERS, CHOICES = 100_000, 2_000, 200, 64


@dataclass(frozen=True)
class Question:
    """One question, with the place of the right answer among its choices; without other choices, the right answer is the only one."""

    context: str
    choices: tuple[str, ...]
    right: int
    task: str | None


def read_questions(source: Blobs, blobs: Sequence[Blob]) -> Iterator[tuple[str, Question]]:
    """(place, question) of every row, in the order of file names.

    Raises InputError for a file that cannot be read, and for a row that is no question: where, which field, what it should be.
    """
    for blob in blobs:
        data = bytes(source.read_range(blob, 0, blob.size)) if blob.size else b""
        yield from _of_file(data, f"{source.url.rstrip('/')}/{blob.name}", parquet=blob.name.endswith(".parquet"))


def read_bundle() -> Iterator[tuple[str, Question]]:
    """The same for the questions that FabRating ships."""
    return _of_file(BUNDLE_FILE.read_bytes(), BUNDLE_FILE.name, parquet=False)


def _of_file(data: bytes, file: str, *, parquet: bool) -> Iterator[tuple[str, Question]]:
    for number, row in enumerate(_rows(data, file) if parquet else _lines(data, file), start=1):
        if row is not None:
            place = f"{'Row' if parquet else 'Line'} {number} of {file}"
            yield place, _question(row, place)


def _lines(data: bytes, file: str) -> Iterator[Mapping[str, Any] | None]:
    for number, line in enumerate(data.splitlines(), start=1):
        try:
            row = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise InputError(
                f"Line {number} of {file} is not JSON ({str(error).split(':')[0]}): write one object per line."
            ) from error
        if row is not None and not isinstance(row, dict):
            raise InputError(f"Line {number} of {file} is not a JSON object: write one per line.")
        yield row


def _rows(data: bytes, file: str) -> Iterator[Mapping[str, Any]]:
    try:
        with pq.ParquetFile(pa.BufferReader(data)) as opened:
            names = opened.schema_arrow.names
            if twice := [name for name in FIELDS if names.count(name) > 1]:
                raise InputError(f"{file} has several columns {twice[0]!r}: keep one of them.")
            taken = [name for name in FIELDS if name in names]
            _require_fields(taken, names, file)
            for batch in opened.iter_batches(1_024, columns=taken):
                yield from ({name: row[name] for name in taken} for row in batch.to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read as parquet ({str(error).splitlines()[0]}): remove it.") from error


def _require_fields(given: Sequence[str], names: Sequence[str], place: str) -> None:
    """Raises InputError unless there is a context and an answer; the message names the nearest field that is there."""
    for wanted in (("context", "question"), ("answer",)):
        if not set(wanted) & set(given):
            near = next((near[0] for name in wanted if (near := get_close_matches(name, names, 1, 0.6))), None)
            there = f"rename {near!r}, which is nearest" if near else f"it has {', '.join(names) or 'none'}"
            raise InputError(f"{place} has no {' or '.join(map(repr, wanted))}: {there}.")


def _question(row: Mapping[str, Any], place: str) -> Question:
    def refuse(field: str, problem: str) -> InputError:
        return InputError(f"{place}: {field} {problem}.")

    _require_fields([name for name in FIELDS if name in row], list(row), place)
    asked = "context" if "context" in row else "question"
    context = _text(row[asked])
    if context is None:
        raise refuse(asked, f"is {_shown(row[asked])}: it must be a text")
    if len(context) > CONTEXT_CHARACTERS:
        raise refuse(asked, f"has {len(context):,} characters: shorten it to {CONTEXT_CHARACTERS:,}")
    given, answer, task = row.get("choices"), row["answer"], row.get("task")
    if given is None:
        choices = [_choice(answer, "answer", refuse)]
        right = 0
    else:
        choices = _choices(given, refuse)
        right = _place(answer, choices, refuse)
    if task is not None and not (isinstance(task, str) and 0 < len(task.strip()) <= TASK_CHARACTERS):
        raise refuse("task", f"is {_shown(task)}: it must be a text of 1 to {TASK_CHARACTERS} characters")
    return Question(context, tuple(choices), right, None if task is None else replace_surrogates(task))


def _choices(given: Any, refuse: Refusal) -> list[str]:
    if not isinstance(given, list) or not 2 <= len(given) <= CHOICES:
        raise refuse("choices", f"is {_shown(given)}: it must be a list of 2 to {CHOICES} texts")
    choices = [_choice(each, f"choices[{number}]", refuse) for number, each in enumerate(given)]
    asked = [each if each[:1].isspace() else f" {each}" for each in choices]  # a blank is put there anyway
    if len(set(asked)) < len(asked):
        twice = next(each for each, as_asked in zip(choices, asked, strict=True) if asked.count(as_asked) > 1)
        raise refuse("choices", f"holds {_shown(twice)} twice: keep one")
    return choices


def _choice(given: Any, field: str, refuse: Refusal) -> str:
    text = _text(given)
    if text is None or not text.strip():
        more = ", or its place with choices" if field == "answer" and isinstance(given, int) else ""
        raise refuse(field, f"is {_shown(given)}: it must be a text, not blank{more}")
    if len(text) > ANSWER_CHARACTERS:
        raise refuse(field, f"has {len(text):,} characters: shorten it to {ANSWER_CHARACTERS:,}")
    return text


def _place(answer: Any, choices: Sequence[str], refuse: Refusal) -> int:
    """The place of the right answer, which is given as such or as one of the choices."""
    if isinstance(answer, int) and not isinstance(answer, bool):
        if not 0 <= answer < len(choices):
            raise refuse("answer", f"is {answer}: the {len(choices)} choices are numbered 0 to {len(choices) - 1}")
        return answer
    text = _text(answer)
    if text is None or text not in choices:
        near = get_close_matches(text or "", choices, 1, 0.6)
        which = f", such as {_shown(near[0])}" if near else ""
        raise refuse("answer", f"is {_shown(answer)}: it must be one of the choices{which}, or its place from 0")
    return choices.index(text)


def _text(value: Any) -> str | None:
    return replace_surrogates(value) if isinstance(value, str) else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
