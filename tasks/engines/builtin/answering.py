"""Log-likelihoods of the choices of questions, many in a batch: each is a row of its own, padded on the right, where causal attention
cannot look.

A row is `<|bos|>`, the context, the choice; only the choice's tokens are targets. Of a context that is too long the beginning is left
out, and `<|bos|>` stays (lm-eval drops it there).
"""

import numpy as np
import pyarrow as pa

from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.evaluation import EncodedHoldout, Losses, Windows, window_nats
from tasks.errors import DamagedError
from tasks.records.layout import CHOICES, TOKENS
from tasks.records.questions import answers_table, read_choices
from tasks.store.artifact import Artifact


def open_questions(encoded: Artifact) -> EncodedHoldout:
    """The content of `pools/<pool>/questions/<set>`, whose "documents" are choices.

    Raises DamagedError when offsets leave the token file.
    """
    choices, path = read_choices(encoded.path / CHOICES), encoded.path / TOKENS
    tokens = np.fromfile(path, dtype="<u2")
    ends = choices["offset"].to_numpy() + choices["context"].to_numpy() + choices["tokens"].to_numpy()
    if len(ends) and ends.max() > len(tokens):
        raise DamagedError(f"{path} holds {len(tokens):,} tokens, its choices {ends.max():,}: delete {encoded.path}.")
    return EncodedHoldout(tokens, choices, encoded.facts["bos"])


def windows_of(choices: pa.Table, sequence_length: int) -> Windows:
    """One row a choice, of at most `sequence_length` positions, longest first."""
    start, tokens = choices["context"].to_numpy(), choices["tokens"].to_numpy()
    context = np.minimum(start, sequence_length - tokens)
    order = np.argsort(-(context + tokens), kind="stable")
    return Windows(order, start[order], (start + tokens)[order], context[order])


def answer(
    losses: Losses, questions: EncodedHoldout, sequence_length: int, batch_tokens: int, world: World
) -> pa.Table:
    """The answers of a model, as `records.questions` has them, the same on every rank."""
    windows = windows_of(questions.documents, sequence_length)
    if world.device.type == "cpu":  # no kernels to compile for each length
        sequence_length = int(windows.length.max())
    nats = window_nats(losses, questions, windows, sequence_length, batch_tokens, world)
    assert nats is not None, "nobody stops it"
    log_likelihoods = np.empty(len(nats))
    log_likelihoods[windows.document] = -nats
    return answers_table(log_likelihoods, questions.documents)
