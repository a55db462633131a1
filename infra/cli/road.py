"""The road from a pool to a scored model without a server: the rooms' functions in the order in which the flows call them."""

from dataclasses import dataclass

from flows.recorded import recorded
from tasks.corpus.prepare import build_arms, build_holdout, build_index, build_sample, open_pool, plan_arm
from tasks.engines import entry as engine
from tasks.errors import InputError
from tasks.progress import Progress, silent
from tasks.records.layout import ArmFolder
from tasks.records.recall import recall
from tasks.spec import Arm, Packing, Pool, Training
from tasks.store.artifact import Artifact
from tasks.store.root import Root
from tasks.tokens.evaluation import encode_holdout
from tasks.tokens.pack import pack_arm
from tasks.tokens.train import train_tokenizer


@dataclass(frozen=True)
class Prepared:
    """What `prepare` made or found."""

    pool_id: str
    arm_id: str
    text: Artifact
    packed: Artifact


def prepare(
    root: Root, pool: Pool, arm: Arm, sequence_length: int, packing: Packing = "split", progress: Progress = silent
) -> Prepared:
    """Index -> holdout -> selection -> text -> tokenizer -> packed rows; what is complete is skipped.

    Raises InputError before anything is read when the plan cannot be carried out.
    """
    handle = open_pool(root, pool)
    build_index(root, handle, progress=progress)
    build_holdout(root, handle, progress=progress)
    plan = plan_arm(root, handle, arm)
    (text,) = build_arms(root, handle, [arm], progress=progress)
    build_sample(root, handle, progress=progress)
    train_tokenizer(root, handle.pool_id, pool.vocab_size, progress=progress)
    encode_holdout(root, handle.pool_id, progress=progress)
    packed = pack_arm(root, plan.arm_id, handle.pool_id, sequence_length, packing, progress=progress)
    return Prepared(handle.pool_id, plan.arm_id, text, packed)


def train(root: Root, arm_id: str, training: Training, seed: int, progress: Progress = silent) -> Artifact:
    """Train on a prepared arm and score the model; the attempt is noted in the run ledger. Returns the run's result."""
    experiment, pool_id = recall(root, arm_id, training, seed)
    with recorded(root, experiment, pool_id, arm_id) as facts:
        result = engine.train(root, experiment, pool_id, arm_id, progress=progress)
        facts |= result.facts
    return result


def packed_as(root: Root, arm_id: str) -> tuple[int, str]:
    """Sequence length and way of packing of an arm. Raises InputError when it is packed in none or more than one way."""
    packings = ArmFolder(arm_id).packings(root)
    if len(packings) != 1:
        found = ", ".join(f"{length} ({packing})" for length, packing in packings) or "none"
        raise InputError(
            f"The arm {arm_id!r} is packed for {found} tokens a row: say which with --sequence-length and --set packing=..."
        )
    return packings[0]
