"""Questions in the tokens of a pool, cut where lm-eval cuts them: what runs of the pool are asked beside the holdout.

A context and a choice are encoded together, and as many tokens as the context alone has are the context's. White space at the end of the
context belongs to the choice. A blank is put between the two where neither has white space there. Where a choice merges with the end of
its context so that no token is left for it, which lm-eval refuses, it gets all tokens from the first that differs from the context's. A model reads `<|bos|>`, as before
each document that it was trained on, then the context: lm-eval's numbers with `add_bos_token=True`.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
import pyarrow as pa

from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import TOKENS, PoolFolder
from tasks.records.questions import write_choices
from tasks.spec import BUNDLE, Questions
from tasks.store.access import open_blobs
from tasks.store.artifact import Artifact, Work, fingerprint
from tasks.store.listing import data_files
from tasks.store.root import Root
from tasks.tokens.asked import BUNDLE_FILE, KINDS, Question, read_bundle, read_questions
from tasks.tokens.encode import open_encoder
from tasks.tokens.outside import blocks
from tasks.tokens.tokenizer import load_tokenizer

CHECKED = 256
"""Questions on which the encoder is checked."""


def encode_questions(root: Root, pool_id: str, asked: Questions, progress: Progress = silent) -> Artifact:
    """Make `pools/<pool>/questions/<name>-<fingerprint>`: `choices.parquet`, and `tokens.bin` with the tokens of context and choice.

    Raises InputError when there are no such files, one cannot be read, or a row is no question, as `read_questions` says.
    """
    listed, rows = _opened(asked)
    trained = root.open(PoolFolder(pool_id).tokenizer)
    tokenizer = load_tokenizer(trained.path)

    def make(work: Work) -> None:
        found = list(islice(rows, asked.questions))
        if not found:
            raise InputError(f"{asked.url} holds no questions: check the URL.")
        questions = [question for _, question in found]
        places = [(number, choice) for number, each in enumerate(questions) for choice in each.choices]
        pairs = [boundary(questions[number].context, choice) for number, choice in places]
        encoder = open_encoder(tokenizer, ["".join(pair) for pair in pairs[:CHECKED]])
        contexts, context_tokens = encoder.encode(pa.array([context for context, _ in pairs], pa.large_string()))
        ids, offsets = encoder.encode(pa.array(["".join(pair) for pair in pairs], pa.large_string()))
        parts: list[np.ndarray] = []
        for i in range(len(places)):
            context = contexts[context_tokens[i] : context_tokens[i + 1]]
            whole = ids[offsets[i] : offsets[i + 1]]
            if len(context) >= len(whole):
                context = whole[: np.argmax(whole != context[: len(whole)])]
            parts += [context, whole[len(context) :]]
        sizes = np.array([len(part) for part in parts]).reshape(-1, 2)
        work.temporary(TOKENS).write_bytes(np.concatenate(parts).astype("<u2").tobytes())
        work.finish(TOKENS, rows=int(sizes.sum()))
        write_choices(work, _table(questions, sizes))
        work.facts.update(
            questions=len(questions),
            choices=len(places),
            tasks=len({each.task for each in questions}),
            with_choices=sum(len(each.choices) > 1 for each in questions),
            longest_answer=int(sizes[:, 1].max()),
            tokens=int(sizes.sum()),
            bos=tokenizer.bos,
            encoder=encoder.library,
            tokenizer=trained.fingerprint,
        )
        progress("questions", len(questions), len(questions), {})

    name = f"{asked.name}-{fingerprint(asked.identity(), listed)}"
    inputs = {"tokenizer": trained.manifest}
    return root.build(PoolFolder(pool_id).questions(name), make, spec=asked.identity(), inputs=inputs)


def question_texts(asked: Questions) -> list[str]:
    """What `encode_questions` encodes, each with its right answer, in its order: text number i is question i of the answers."""
    questions = (question for _, question in islice(_opened(asked)[1], asked.questions))
    return ["".join(boundary(each.context, each.choices[each.right])) for each in questions]


def _opened(asked: Questions) -> tuple[list[list[str | int | None]], Iterator[tuple[str, Question]]]:
    """The files that a set of questions is read from, with what tells their content, and its rows."""
    if asked.url == BUNDLE:
        return [[BUNDLE_FILE.name, hashlib.sha256(BUNDLE_FILE.read_bytes()).hexdigest()]], read_bundle()
    source = open_blobs(asked.url)
    blobs = data_files(source, KINDS)
    return [[blob.name, blob.size, blob.etag] for blob in blobs], read_questions(source, blobs)


def boundary(context: str, choice: str) -> tuple[str, str]:
    """The text of which the context's tokens are made, and what follows it."""
    kept = context.rstrip()
    space = context[len(kept) :]
    blank = "" if space or not kept or choice[0].isspace() else " "
    return kept, space + blank + choice


def _table(questions: Sequence[Question], sizes: np.ndarray) -> pa.Table:
    """The choices of questions. `sizes`: tokens of each one's context and of the choice, (choices, 2)."""
    rows = [
        (number, choice, place == each.right)
        for number, each in enumerate(questions)
        for place, choice in enumerate(each.choices)
    ]
    tasks = _tasks(questions)
    number = np.array([row[0] for row in rows])
    totals = sizes.sum(1)
    columns = {
        "question": number,
        "task": [tasks[row[0]][0] for row in rows],
        "cluster": np.array([tasks[row[0]][1] for row in rows], np.int32),
        "right": [row[2] for row in rows],
        "offset": np.cumsum(totals) - totals,
        "context": sizes[:, 0],
        "tokens": sizes[:, 1],
        "bytes": [len(row[1].encode()) for row in rows],
        "characters": [len(row[1]) for row in rows],
    }
    return pa.table(columns)


def _tasks(questions: Sequence[Question]) -> list[tuple[str, int]]:
    """Name and cluster of each question's task; blocks of neighbours where no question has one."""
    if all(each.task is None for each in questions):
        return [("", block) for block in blocks(len(questions)).tolist()]
    numbers: dict[str, int] = {}
    return [(task, numbers.setdefault(task, len(numbers))) for task in (each.task or "" for each in questions)]
