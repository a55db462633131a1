"""Packing an arm on disk: contents, determinism, resuming, and what is refused."""

import json
import shutil
import signal
import threading
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError, InterruptedRun
from tasks.records.packed import read_contents
from tasks.store.artifact import Work, sha256_file
from tasks.store.root import Root
from tasks.tokens import pack as pack_module
from tasks.tokens.pack import pack_arm, pack_arms
from tests.tokens import conftest
from tests.tokens.conftest import ARM, POOL, make_documents

GROUP = 20
SHARDS = [make_documents(count, seed) for count, seed in ((90, 10), (70, 11), (45, 12))]
"""Of five, four and three row groups."""

WAYS = list(pack_module.PACKERS)


def write_text(root: Root, arm: str, shards: list[list[str]]) -> None:
    conftest.write_text(root, arm, shards, GROUP)


def rows_of(artifact) -> np.ndarray:
    return np.fromfile(artifact.path / "rows.bin", "<u2").reshape(-1, artifact.facts["sequence_length"] + 1)


@pytest.mark.parametrize("packing", WAYS)
def test_rows_are_the_texts_in_shard_order(root, tokenizer, packing):
    write_text(root, ARM, SHARDS)
    packed = pack_arm(root, ARM, POOL, 64, packing)

    packer = pack_module.PACKERS[packing](64, tokenizer.bos)
    expected = []
    for shard in SHARDS:
        for start in range(0, len(shard), GROUP):
            ids = [tokenizer.encode(text) for text in shard[start : start + GROUP]]
            offsets = np.cumsum([0, *map(len, ids)])
            expected.append(packer.push(np.array(list(chain(*ids)), np.uint16), offsets).rows)
    expected.append(packer.flush().rows)
    assert np.array_equal(rows_of(packed), np.concatenate(expected))

    facts = packed.facts
    assert facts["documents"] == sum(map(len, SHARDS))
    assert facts["bytes"] == sum(len(text.encode()) for shard in SHARDS for text in shard)
    assert facts["tokens"] == sum(len(tokenizer.encode(text)) + 1 for shard in SHARDS for text in shard)
    assert facts["rows"] == len(rows_of(packed))
    lost = facts["cropped_tokens"] + facts["dropped_tokens"]
    assert facts["tokens"] - lost == (facts["rows"] * 64 + 1 if packing == "split" else facts["rows"] * 65)
    assert facts["tokens_per_epoch"] == facts["rows"] * 64
    assert facts["bos"] == tokenizer.bos
    assert facts["tokenizer"] == root.open(f"pools/{POOL}/tokenizer").fingerprint
    assert {record.path: record.rows for record in packed.manifest.files} == {
        "contents.bin": facts["rows"],
        "rows.bin": facts["rows"],
    }


@pytest.mark.parametrize("packing", WAYS)
def test_contents_say_what_each_row_trains_on(root, tokenizer, packing):
    write_text(root, ARM, SHARDS)
    packed = pack_arm(root, ARM, POOL, 64, packing)
    rows, contents, facts = rows_of(packed), read_contents(packed.path), packed.facts
    token_bytes = np.load(root.path(f"pools/{POOL}/tokenizer") / "token_bytes.npy")
    assert contents["bytes"].tolist() == token_bytes[rows[:, 1:]].sum(1).tolist()
    assert facts["trained_bytes"] == contents["bytes"].sum()
    begun = (
        (rows == tokenizer.bos).sum(1)
        if packing == "crop"
        else (rows[:, 1:] == tokenizer.bos).sum(1) + ([1] + [0] * (len(rows) - 1))
    )
    assert contents["documents"].tolist() == begun.tolist()
    assert contents["score"].min() >= 1.0 and contents["score"].max() <= 4.0
    if packing == "split":
        assert facts["trained_bytes"] >= facts["bytes"] - 64 * token_bytes.max()
        assert (np.diff(contents["score"]) <= 1e-6).all()  # the arm's order, best first
    else:
        assert facts["trained_bytes"] < facts["bytes"]


def test_a_document_without_a_rating_has_no_part_in_a_score(root):
    write_text(root, ARM, SHARDS)
    folder = root.path(f"arms/{ARM}/text")
    scores = np.full(sum(map(len, SHARDS)), np.nan)
    pq.write_table(pa.table({"score": scores}), folder / "documents.parquet")
    manifest = (folder / "manifest.json").read_text()
    size = (folder / "documents.parquet").stat().st_size
    content = json.loads(manifest)
    for record in content["files"]:
        if record["path"] == "documents.parquet":
            record["bytes"] = size
    (folder / "manifest.json").write_text(json.dumps(content))
    assert np.isnan(read_contents(pack_arm(root, ARM, POOL, 64).path)["score"]).all()


def test_the_number_of_workers_changes_nothing(root, pool_folder, tmp_path):
    digests = set()
    for workers in (1, 2, 7):
        other = Root(tmp_path / f"w{workers}")
        other.path("pools").mkdir()
        other.path(f"pools/{POOL}").symlink_to(pool_folder / "pools" / POOL)
        write_text(other, ARM, SHARDS)
        digests.add(sha256_file(pack_arm(other, ARM, POOL, 128, workers=workers).path / "rows.bin"))
    assert len(digests) == 1


class KilledError(Exception):
    """Stands for the end of the process: nothing in the code under test catches it."""


@pytest.fixture(scope="module")
def packed_at_once(tmp_path_factory, pool_folder):
    """SHARDS packed without an interruption, T = 64."""
    straight = Root(tmp_path_factory.mktemp("straight"))
    straight.path("pools").mkdir()
    straight.path(f"pools/{POOL}").symlink_to(pool_folder / "pools" / POOL)
    write_text(straight, ARM, SHARDS)
    return {packing: pack_arm(straight, ARM, POOL, 64, packing) for packing in WAYS}


def assert_equal(packed, expected):
    for name in ("rows.bin", "contents.bin"):
        assert sha256_file(packed.path / name) == sha256_file(expected.path / name)
    assert packed.facts == expected.facts


@pytest.mark.parametrize("packing", WAYS)
@pytest.mark.parametrize("groups_before_the_kill", [1, 4, 7, 9])
def test_a_killed_run_goes_on_at_the_shard_it_was_in(
    root, packed_at_once, monkeypatch, groups_before_the_kill, packing
):
    write_text(root, ARM, SHARDS)
    pushed = 0
    packer = pack_module.PACKERS[packing]
    real_push = packer.push

    def push(self, ids, offsets):
        nonlocal pushed
        if pushed == groups_before_the_kill:
            raise KilledError
        pushed += 1
        return real_push(self, ids, offsets)

    with monkeypatch.context() as patch:
        patch.setattr(packer, "push", push)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64, packing)

    starts = []
    real_groups = pack_module._row_groups
    monkeypatch.setattr(pack_module, "_row_groups", lambda s, start: starts.append(start) or real_groups(s, start))
    assert_equal(pack_arm(root, ARM, POOL, 64, packing), packed_at_once[packing])
    assert starts == [sum(groups_before_the_kill >= groups for groups in (5, 9, 12))]


def test_a_run_killed_before_its_manifest_ends_the_same(root, packed_at_once, monkeypatch):
    write_text(root, ARM, SHARDS)

    def publish(self, *rest):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Work, "publish", publish)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64)
    assert_equal(pack_arm(root, ARM, POOL, 64), packed_at_once["split"])


@pytest.mark.parametrize("damage", ["state", "shards", "rows", "contents"])
def test_damaged_leftovers_are_packed_anew(root, packed_at_once, monkeypatch, damage):
    write_text(root, ARM, SHARDS)

    def flush(self):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(pack_module.PACKERS["split"], "flush", flush)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64)
    (partial,) = root.path(f"arms/{ARM}/packed").glob(".64-split.*.partial")
    leftover = partial / {"rows": ".rows.bin.writing", "contents": ".contents.bin.writing"}.get(damage, ".state.npz")
    if damage == "shards":  # what is read last is gone
        with np.load(leftover) as state:
            arrays = {name: state[name] for name in state if name != "shards"}
        np.savez(leftover, **arrays)
    else:
        leftover.write_bytes(leftover.read_bytes()[:100])
    assert_equal(pack_arm(root, ARM, POOL, 64), packed_at_once["split"])


def test_an_empty_shard_is_gone_over(root):
    write_text(root, ARM, [SHARDS[0], [], SHARDS[2]])
    assert pack_arm(root, ARM, POOL, 64).facts["documents"] == len(SHARDS[0]) + len(SHARDS[2])


def test_a_complete_artifact_is_reused(root):
    write_text(root, ARM, SHARDS)
    assert not pack_arm(root, ARM, POOL, 64).reused
    assert pack_arm(root, ARM, POOL, 64).reused


def test_sequence_lengths_lie_side_by_side(root):
    write_text(root, ARM, SHARDS)
    assert pack_arm(root, ARM, POOL, 64).path.name == "64-split"
    assert rows_of(pack_arm(root, ARM, POOL, 128)).shape[1] == 129


def test_progress_counts_shards(root):
    write_text(root, ARM, SHARDS)
    seen = []
    pack_arm(root, ARM, POOL, 64, progress=lambda stage, done, total, counters: seen.append((stage, done, total)))
    assert seen[-1] == ("pack", 3, 3)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


@pytest.mark.parametrize("workers", [1, 12])
def test_several_arms_have_the_rows_that_each_has_alone(root, monkeypatch, workers):
    monkeypatch.setenv("FABRATING_WORKERS", str(workers))
    texts = {"a": SHARDS, "b": SHARDS[:1], "c": SHARDS[1:], "d": SHARDS[::-1]}
    alone, seen = {}, []
    for arm, shards in texts.items():
        write_text(root, arm, shards)
        alone[arm] = sha256_file(pack_arm(root, arm, POOL, 64).path / "rows.bin")
    shutil.rmtree(root.path("arms/b/packed"))
    shutil.rmtree(root.path("arms/d/packed"))
    packed = pack_arms(root, ["d", *texts], POOL, 64, progress=lambda *told: seen.append(told[:3]))
    assert {arm: sha256_file(each.path / "rows.bin") for arm, each in packed.items()} == alone
    assert {arm for arm, each in packed.items() if not each.reused} == {"b", "d"}
    assert seen[-1] == ("pack", 4, 4)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


def test_an_arm_that_cannot_be_packed_is_named_and_the_others_stay(root, monkeypatch):
    monkeypatch.setenv("FABRATING_WORKERS", "8")
    write_text(root, "whole", SHARDS)
    write_text(root, "short", [["a few words"]])
    with pytest.raises(InputError, match=r"arms/short/text holds \d+ tokens, which do not fill one row of 513"):
        pack_arms(root, ["whole", "short"], POOL, 512)
    assert pack_arms(root, ["whole"], POOL, 512)["whole"].facts["documents"] == sum(map(len, SHARDS))


def test_a_signal_that_reaches_a_packing_thread_stops_all_arms(root, monkeypatch):
    monkeypatch.setenv("FABRATING_WORKERS", "8")
    for arm in "ab":
        write_text(root, arm, SHARDS)
    acted, seen = threading.Event(), []

    def act(number, frame):
        acted.set()
        raise InterruptedRun("Stopped.")

    def tell(*told):
        if not seen:
            signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
        seen.append(acted.wait(5))

    before = signal.signal(signal.SIGUSR1, act)
    try:
        with pytest.raises(InterruptedRun):
            pack_arms(root, ["a", "b"], POOL, 64, progress=tell)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert set(seen) == {True} and len(seen) <= 2


def test_an_arm_without_training_shards_is_refused(root):
    write_text(root, ARM, [])
    with pytest.raises(InputError, match="no training shard"):
        pack_arm(root, ARM, POOL, 64)


def test_an_arm_that_does_not_fill_a_row_is_refused(root):
    write_text(root, ARM, [["a few words"]])
    with pytest.raises(InputError, match="do not fill one row of 2,049"):
        pack_arm(root, ARM, POOL)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pa.table({"content": ["a"]}), "no column `text`"),
        (pa.table({"text": ["a", None]}), "1 null texts"),
    ],
)
def test_a_shard_that_is_none_is_refused(root, table, message):
    def make(work):
        for number in range(2):
            name = f"shard_{number:05d}.parquet"
            pq.write_table(table, work.temporary(name))
            work.finish(name)
        pq.write_table(pa.table({"score": [1.0, 2.0]}), work.temporary("documents.parquet"))
        work.finish("documents.parquet")

    root.build(f"arms/{ARM}/text", make, spec={})
    with pytest.raises(InputError, match=message):
        pack_arm(root, ARM, POOL, 16)
