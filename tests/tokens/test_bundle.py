"""The questions that FabRating ships are those that the repository makes."""

import json
from collections import Counter

from benchmarks.questions.make import bundle
from tasks.tokens.asked import BUNDLE_FILE, read_bundle

BYTES = 100_000


def test_the_bundle_is_what_its_script_makes():
    assert BUNDLE_FILE.read_text() == bundle()
    assert BUNDLE_FILE.stat().st_size < BYTES


def test_it_has_enough_tasks_and_no_question_twice():
    questions = [question for _, question in read_bundle()]
    tasks = Counter(question.task for question in questions)
    assert len(tasks) >= 30 and min(tasks.values()) >= 8 and len(questions) > 400
    asked = Counter((question.context, question.choices[question.right]) for question in questions)
    assert max(asked.values()) == 1
    places = Counter(question.right for question in questions if len(question.choices) == 4)
    assert max(places.values()) < 1.3 * min(places.values()), "no place is right more often than others"


def test_computed_answers_are_right():
    for line in BUNDLE_FILE.read_text().splitlines():
        row = json.loads(line)
        right = row["choices"][row["answer"]]
        if row["context"].startswith(">>> "):
            assert repr(eval(row["context"][4:])) == right
        elif row["task"] in ("addition", "subtraction", "multiplication"):
            asked = row["context"].removesuffix(" is").removesuffix(" =")
            for word, sign in (("plus", "+"), ("minus", "-"), ("times", "*")):
                asked = asked.replace(word, sign)
            assert eval(asked) == int(right)
