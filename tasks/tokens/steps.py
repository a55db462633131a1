"""The tasks of this room: tokenizer, evaluation tokens, packed rows, each resumable by running it again."""

from typing import Any

from prefect import task
from prefect.tasks import exponential_backoff

from tasks import steps as show
from tasks.spec import Packing, Texts
from tasks.store.root import Root
from tasks.tokens.evaluation import encode_holdout
from tasks.tokens.outside import encode_outside
from tasks.tokens.pack import pack_arm
from tasks.tokens.train import train_tokenizer

RETRIED: dict[str, Any] = {
    "retries": 3,
    "retry_delay_seconds": exponential_backoff(10),
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": show.retryable,
    "persist_result": False,
}
"""A remote root goes over the network; all else fails for good at once."""


@task(task_run_name="tokenizer of {pool_id}", **RETRIED)
def tokenizer(root_url: str, pool_id: str, vocab_size: int = 32_768) -> dict[str, Any]:
    """Train the pool's tokenizer on its sample; returns the artifact's facts."""
    with show.progress("Tokenizer") as progress:
        return dict(train_tokenizer(Root(root_url), pool_id, vocab_size, progress=progress).facts)


@task(task_run_name="evaluation tokens of {pool_id}", **RETRIED)
def evaluation(root_url: str, pool_id: str) -> dict[str, Any]:
    """Encode the pool's holdout; returns the artifact's facts."""
    with show.progress("Evaluation tokens") as progress:
        return dict(encode_holdout(Root(root_url), pool_id, progress=progress).facts)


@task(task_run_name="rows of {arm_id}", **RETRIED)
def pack(root_url: str, arm_id: str, pool_id: str, sequence_length: int, packing: Packing) -> dict[str, Any]:
    """Pack an arm's text into rows; returns the artifact's facts."""
    with show.progress("Packed rows") as progress:
        return dict(pack_arm(Root(root_url), arm_id, pool_id, sequence_length, packing, progress=progress).facts)


@task(task_run_name="texts {texts.name} for {pool_id}", **RETRIED)
def outside(root_url: str, pool_id: str, texts: Texts) -> str:
    """Encode texts from elsewhere; returns the last part of the artifact's name."""
    with show.progress(f"Texts {texts.name}") as progress:
        return encode_outside(Root(root_url), pool_id, texts, progress=progress).path.name
