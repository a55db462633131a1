"""The questions that FabRating ships: some hundred, of arithmetic, units, dates, words, well-known facts and Python's own behavior.

They are templates over the tables of `facts`, and what can be computed is computed: Python's answers by running Python. Three wrong
choices come from the other answers of the task. Everything is chosen by hashes, so the same text comes out on every machine.
"""

import calendar
import datetime
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence

from benchmarks.questions import facts

WRONG = 3
Asked = Iterator[tuple[str, str, Sequence[str]]]
"""(context, right answer, answers that wrong choices are taken from)"""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
UNITS = [
    ("minutes", "hour", 60), ("seconds", "minute", 60), ("hours", "day", 24), ("days", "week", 7), ("months", "year", 12), ("grams", "kilogram", 1000),
    ("meters", "kilometer", 1000), ("centimeters", "meter", 100), ("bits", "byte", 8), ("cents", "dollar", 100),
]  # fmt: skip


def bundle() -> str:
    """All questions as JSON lines, task by task."""
    lines = []
    for task, ask in TASKS.items():
        for context, right, others in ask():
            wrong = sorted(set(others) - {right}, key=lambda choice: _hash(task, context, choice))[:WRONG]
            assert wrong, f"{task} has one answer alone: {context}"
            choices = sorted([right, *wrong], key=lambda choice: _hash(context, choice, task))
            row = {"task": task, "context": context, "choices": choices, "answer": choices.index(right)}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    return "".join(lines)


def _hash(*parts: str) -> bytes:
    return hashlib.sha256("\0".join(parts).encode()).digest()


def _pairs(table: str, template: str, separator: str = ",", between: str = " ") -> Callable[[], Asked]:
    """Ask with the first word of each pair for the rest, or with what stands before `between`."""

    def ask() -> Asked:
        rows = [part.strip().rpartition(between) for part in table.replace("\n", " ").split(separator)]
        answers = list(dict.fromkeys(answer for _, _, answer in rows))
        for given, _, answer in rows:
            yield template.format(given=given), answer, answers

    return ask


def _near(value: int) -> list[str]:
    """Numbers that one may take for another: of other size, and with digits changed."""
    found = {value + 1, value - 1, value + 2, value - 2, value + 10, value - 10, value * 2} - {value}
    return [str(each) for each in sorted(found) if each >= 0 or value < 0]


def sums(sign: str) -> Callable[[], Asked]:
    """Of two numbers below 50, by hashes."""

    def ask() -> Asked:
        word, compute = {
            "+": ("plus", lambda a, b: a + b),
            "-": ("minus", lambda a, b: a - b),
            "*": ("times", lambda a, b: a * b),
        }[sign]
        for number in range(16):
            digest = _hash(sign, str(number))
            a, b = 2 + digest[0] % (11 if sign == "*" else 48), 2 + digest[1] % (11 if sign == "*" else 48)
            a, b = max(a, b), min(a, b)
            value = compute(a, b)
            yield (f"{a} {word} {b} is" if number % 2 else f"{a} {sign} {b} ="), str(value), _near(value)

    return ask


def units() -> Asked:
    """One or several of a larger unit in a smaller one."""
    for small, large, factor in UNITS:
        for count in (1, 2 + _hash(small)[0] % 4):
            yield f"{count} {large}{'s' if count > 1 else ''} in {small}:", str(count * factor), _near(count * factor)


def weekdays() -> Asked:
    """The days after and before one."""
    names = facts.DAYS.split()
    for number, name in enumerate(names):
        yield f"The day after {name} is", names[(number + 1) % 7], names
        yield f"The day before {name} is", names[number - 1], names


def months() -> Asked:
    """The months after and before one."""
    names = facts.MONTHS.split()
    for number, name in enumerate(names):
        yield f"The month after {name} is", names[(number + 1) % 12], names
    for number, name in enumerate(names[:6]):
        yield f"The month before {name} is", names[number - 1], names


def lengths_of_months() -> Asked:
    """Days of months, leap years among them."""
    for month, name in enumerate(facts.MONTHS.split(), start=1):
        year = 2023 + _hash(str(month))[0] % 4
        days = calendar.monthrange(year, month)[1]
        yield f"How many days has {name} {year}? It has", str(days), ["28", "29", "30", "31"]


def dates() -> Asked:
    """The date some days after another one."""
    for number in range(14):
        digest = _hash("date", str(number))
        day = datetime.date(2020 + digest[0] % 8, 1 + digest[1] % 12, 1 + digest[2] % 28)
        later = day + datetime.timedelta(days=1 + digest[3] % 20)
        others = [(later + datetime.timedelta(days=by)).isoformat() for by in (-31, -10, -2, -1, 1, 2, 10, 30)]
        yield f"{(later - day).days} days after {day.isoformat()} is", later.isoformat(), others


def alphabet() -> Asked:
    """The letters after and before one."""
    for number in range(0, 24, 3):
        yield f"The letter after {LETTERS[number]} is", LETTERS[number + 1], LETTERS
        yield f"The letter before {LETTERS[number + 2]} is", LETTERS[number + 1], LETTERS


def first_words() -> Asked:
    """Which of four words is the first in a dictionary."""
    words = facts.WORDS.split()
    for number in range(14):
        four = sorted(words, key=lambda word: _hash(str(number), word))[:4]
        yield f"Of {', '.join(four[:3])} and {four[3]}, the first in a dictionary is", min(four), four


def capital_letters() -> Asked:
    """Words in capital letters."""
    words = facts.WORDS.split()[:14]
    for word in words:
        yield f'"{word}" in capital letters is', word.upper(), [word, word.capitalize(), word[:-1] + word[-1].upper()]


def spelling() -> Asked:
    """Words backwards, and their letters counted."""
    for word in facts.WORDS.split()[:8]:
        backwards = word[::-1]
        others = [word, backwards[1:] + backwards[0], backwards[-1] + backwards[:-1], word[1:] + word[0]]
        yield f'"{word}" spelled backwards is', backwards, others
    for word in ("tree", "sun", "window", "cat", "elephant", "mountain", "garden", "key"):
        yield f'The number of letters in "{word}" is', str(len(word)), _near(len(word))


def number_words() -> Asked:
    """Numbers as words and as digits, and what follows them."""
    words = facts.NUMBERS.split()
    for number in range(1, 20, 2):
        yield f"The number {number} is written", words[number], words
        yield f"After {words[number - 1]} comes", words[number], words


def series() -> Asked:
    """The next of four numbers with equal differences."""
    for number in range(14):
        digest = _hash("series", str(number))
        start, step = digest[0] % 20, 1 + digest[1] % 10
        row = [start + step * place for place in range(5)]
        yield f"{', '.join(map(str, row[:4]))},", str(row[4]), _near(row[4])


def larger() -> Asked:
    """The largest of three numbers."""
    for number in range(14):
        three = sorted({digest % 100 for digest in _hash("larger", str(number))[:9]}, key=lambda n: _hash(str(n)))[:4]
        shown = f"{three[0]}, {three[1]}, {three[2]} and {three[3]}"
        yield f"The largest of {shown} is", str(max(three)), [str(each) for each in three]


def python(expressions: Sequence[str]) -> Callable[[], Asked]:
    """What Python prints for expressions."""

    def ask() -> Asked:
        results = [repr(eval(expression)) for expression in expressions]  # from the tables of this project alone
        for expression, result in zip(expressions, results, strict=True):
            yield f">>> {expression}\n", result, results

    return ask


def exceptions() -> Asked:
    """Which exception Python raises, found by raising it."""
    raised = {}
    for code in facts.RAISES:
        try:
            exec(code, {})
        except Exception as error:
            raised[code] = type(error).__name__
    for code, what in facts.RAISES.items():
        yield f"In Python, {what} raises", raised[code], list(raised.values())


def types() -> Asked:
    """Types of values, as Python names them."""
    values: list[object] = [1, 1.5, "a", [1], (1, 2), {"a": 1}, {1, 2}, True, None, b"a", range(3), 2j]
    names = [type(value).__name__ for value in values]
    for value, name in zip(values, names, strict=True):
        yield f"The type of {value!r} in Python is", name, names


def ordered() -> Asked:
    """Lists, sorted."""
    for row in facts.SORTED:
        others = [row, row[::-1], sorted(row, reverse=True), sorted(row, key=str), [*sorted(row)[1:], min(row)]]
        yield f"sorted({row}) returns", str(sorted(row)), [str(each) for each in others]


def articles() -> Asked:
    """a or an."""
    for word in facts.COUNTABLE.split():
        right, wrong = f"an {word}", f"a {word}"
        right, wrong = (right, wrong) if word[0] in "aeiou" else (wrong, right)
        yield "In the picture there is", right, [wrong]


TASKS: dict[str, Callable[[], Asked]] = {
    "addition": sums("+"),
    "subtraction": sums("-"),
    "multiplication": sums("*"),
    "series": series,
    "largest number": larger,
    "units": units,
    "weekdays": weekdays,
    "months": months,
    "lengths of months": lengths_of_months,
    "dates": dates,
    "alphabet": alphabet,
    "first in a dictionary": first_words,
    "capital letters": capital_letters,
    "spelling": spelling,
    "number words": number_words,
    "articles": articles,
    "plurals": _pairs(facts.PLURALS, "One {given}, two"),
    "past tense": _pairs(facts.PASTS, "Today they {given}; yesterday they"),
    "comparatives": _pairs(facts.COMPARATIVES, "This one is {given}, but that one is even"),
    "opposites": _pairs(facts.OPPOSITES, 'The opposite of "{given}" is'),
    "capitals": _pairs(facts.CAPITALS, "The capital of {given} is"),
    "young animals": _pairs(facts.YOUNG, "The young of a {given} is called a"),
    "chemical symbols": _pairs(facts.ELEMENTS, "The chemical symbol of {given} is"),
    "places": _pairs(facts.PLACES, "The place for {given} is the"),
    "organs": _pairs(facts.SENSES, "What we {given} with: our"),
    "colors": _pairs(facts.COLORS, "The color of {given} is"),
    "definitions": _pairs(facts.DEFINED, "{given} is called", "|", "="),
    "computing": _pairs(facts.COMPUTING, "{given} is called", "|", "="),
    "file endings": _pairs(facts.ENDINGS, "The name of a {given} file ends in"),
    "python numbers": python(facts.PYTHON),
    "python strings": python(facts.TEXT_METHODS),
    "python truth": python(facts.TRUTHS),
    "python exceptions": exceptions,
    "python types": types,
    "python lists": ordered,
}
