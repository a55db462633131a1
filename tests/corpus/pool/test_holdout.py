"""A holdout that was made anew below an arm that was kept free of the old one."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tasks.corpus.pool import holdout
from tasks.corpus.pool.handle import open_pool
from tasks.corpus.prepare import build_arms, build_sample, build_strata
from tasks.engines.inputs import open_inputs
from tasks.errors import DamagedError, InputError
from tasks.records.job import Job
from tasks.records.layout import PoolFolder
from tasks.spec import Arm, Experiment, Pool, Training
from tasks.store.root import Root
from tasks.tokens.evaluation import encode_holdout
from tasks.tokens.pack import pack_arm
from tasks.tokens.train import train_tokenizer
from tests.corpus.corpora import rated_table, rated_texts, shard_texts

ARM = Arm(name="all", select="all", documents_per_shard=64)
TRAINING = Training(depth=1, sequence_length=64)


def prepare(root: Root, pool: Pool) -> tuple[str, set[str]]:
    """What a training needs: (the pool's id, documents that are both trained on and evaluated)."""
    handle = open_pool(root, pool)
    (text,) = build_arms(root, handle, [ARM], workers=1)
    build_sample(root, handle, workers=1)
    train_tokenizer(root, handle.pool_id, pool.vocab_size)
    encode_holdout(root, handle.pool_id)
    build_strata(root, handle, pool.score)
    arm = text.name.split("/")[1]
    pack_arm(root, arm, handle.pool_id, 64, workers=1)
    experiment = Experiment(pool=pool, arm=ARM, training=TRAINING)
    open_inputs(root, Job.of(root, experiment, handle.pool_id, arm))
    held = pq.read_table(root.path(f"pools/{handle.pool_id}/holdout/documents.parquet"))["text"].to_pylist()
    trained = {text for shard in shard_texts(text.path)[:-1] for text in shard}
    return handle.pool_id, trained & set(held)


def test_no_document_is_trained_on_and_evaluated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "raw").mkdir()
    pq.write_table(rated_texts(400), tmp_path / "raw/a.parquet", row_group_size=50)
    pool = Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=20, holdout_fraction=0.2, vocab_size=300)
    root = Root(tmp_path / "root")
    made, leaked = prepare(root, pool)
    assert leaked == set(), "the first time"
    root.remove(f"pools/{made}/holdout")
    root.remove(f"pools/{made}/evaluation")
    root.remove(PoolFolder(made).strata(pool.score))
    build = holdout.build

    def of_the_next_release(work, pool, *rest):
        build(work, pool.model_copy(update={"seed": 7}), *rest)

    monkeypatch.setattr(holdout, "build", of_the_next_release)
    try:
        leaked = prepare(root, pool)[1]
    except (InputError, DamagedError):
        return
    assert leaked == set(), "after another holdout"


def test_what_is_made_again_from_the_same_blobs_has_the_same_content(tmp_path: Path) -> None:
    """Or everything that was made from it would be refused."""
    (tmp_path / "raw").mkdir()
    pq.write_table(rated_texts(400), tmp_path / "raw/a.parquet", row_group_size=50)
    pool = Pool(source=(tmp_path / "raw").as_uri(), holdout_documents=20, holdout_fraction=0.2, vocab_size=300)
    first, second = Root(tmp_path / "first"), Root(tmp_path / "second")
    made = [prepare(root, pool) for root in (first, second)]
    assert made[0] == made[1]
    names = first.names("")
    assert len(names) == 13 and second.names("") == names
    assert [second.find(name).content for name in names] == [first.find(name).content for name in names]
    for name in names:  # one after another is deleted and made again, below what was made from it
        second.remove(name)
        prepare(second, pool)
    assert [second.find(name).content for name in names] == [first.find(name).content for name in names]


@pytest.mark.parametrize(
    ("texts", "sentence"),
    [
        ([None, ""] * 300, r"None of the 600 documents of the pool pool has a text in 'text': set text_column"),
        (["the same"] * 600, r"The 600 documents of the pool pool have only 1 different texts, and the holdout alone"),
    ],
)
def test_a_pool_without_enough_texts_is_refused_with_what_it_has(texts, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    pq.write_table(rated_table(texts, [[1.0] * 3] * 600), tmp_path / "raw/a.parquet")
    with pytest.raises(InputError, match=sentence):
        build_arms(Root(tmp_path / "root"), Pool(source=(tmp_path / "raw").as_uri()), [ARM], workers=1)
