"""Packing an arm on disk: contents, determinism, resuming, and what is refused."""

from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.errors import InputError
from tasks.store.artifact import Work, sha256_file
from tasks.store.root import Root
from tasks.tokens import pack as pack_module
from tasks.tokens.pack import pack_arm
from tasks.tokens.packer import Packer
from tests.tokens.conftest import ARM, POOL, make_documents, write_text

SHARDS = [make_documents(900, seed=10), make_documents(700, seed=11), make_documents(450, seed=12)]


def rows_of(artifact) -> np.ndarray:
    width = artifact.facts["sequence_length"] + 1
    return np.memmap(artifact.path / "rows.bin", "<u2", "r").reshape(-1, width)


def test_rows_are_the_texts_in_shard_order(root, tokenizer):
    write_text(root, ARM, SHARDS)
    packed = pack_arm(root, ARM, POOL, sequence_length=64)

    packer = Packer(64, tokenizer.bos)
    expected = []
    for shard in SHARDS:
        for start in range(0, len(shard), 200):
            ids = [tokenizer.encode(text) for text in shard[start : start + 200]]
            offsets = np.cumsum([0, *map(len, ids)])
            expected.append(packer.push(np.array(list(chain(*ids)), np.uint16), offsets))
    expected.append(packer.flush())
    assert np.array_equal(rows_of(packed), np.concatenate(expected))

    facts = packed.facts
    assert facts["documents"] == sum(map(len, SHARDS))
    assert facts["bytes"] == sum(len(text.encode()) for shard in SHARDS for text in shard)
    assert facts["tokens"] == sum(len(tokenizer.encode(text)) + 1 for shard in SHARDS for text in shard)
    assert facts["rows"] == len(rows_of(packed))
    assert facts["tokens"] == facts["packed_tokens"] + facts["cropped_tokens"] + facts["dropped_tokens"]
    assert facts["tokens_per_epoch"] == facts["rows"] * 64
    assert facts["bos"] == tokenizer.bos
    assert facts["tokenizer"] == root.open(f"pools/{POOL}/tokenizer").fingerprint
    assert packed.manifest.files[0].path == "rows.bin"
    assert packed.manifest.files[0].rows == facts["rows"]


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


@pytest.fixture
def packed_at_once(tmp_path, pool_folder):
    """SHARDS packed without an interruption, T = 64."""
    straight = Root(tmp_path / "straight")
    straight.path("pools").mkdir()
    straight.path(f"pools/{POOL}").symlink_to(pool_folder / "pools" / POOL)
    write_text(straight, ARM, SHARDS)
    return pack_arm(straight, ARM, POOL, 64)


@pytest.mark.parametrize("groups_before_the_kill", [1, 4, 7, 9])
def test_a_killed_run_goes_on_at_the_shard_it_was_in(root, packed_at_once, monkeypatch, groups_before_the_kill):
    write_text(root, ARM, SHARDS)
    pushed = 0
    real_push = Packer.push

    def push(self, ids, offsets):
        nonlocal pushed
        if pushed == groups_before_the_kill:
            raise KilledError
        pushed += 1
        return real_push(self, ids, offsets)

    with monkeypatch.context() as patch:
        patch.setattr(Packer, "push", push)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64)

    starts = []
    real_groups = pack_module._row_groups
    monkeypatch.setattr(pack_module, "_row_groups", lambda s, start: starts.append(start) or real_groups(s, start))
    packed = pack_arm(root, ARM, POOL, 64)
    assert sha256_file(packed.path / "rows.bin") == sha256_file(packed_at_once.path / "rows.bin")
    assert packed.facts == packed_at_once.facts
    assert starts == [sum(groups_before_the_kill >= groups for groups in (5, 9, 12))]


def test_a_run_killed_before_its_manifest_ends_the_same(root, packed_at_once, monkeypatch):
    write_text(root, ARM, SHARDS)

    def publish(self, *rest):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Work, "publish", publish)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64)
    packed = pack_arm(root, ARM, POOL, 64)
    assert sha256_file(packed.path / "rows.bin") == sha256_file(packed_at_once.path / "rows.bin")
    assert packed.facts == packed_at_once.facts


@pytest.mark.parametrize("damage", ["state", "rows"])
def test_damaged_leftovers_are_packed_anew(root, packed_at_once, monkeypatch, damage):
    write_text(root, ARM, SHARDS)

    def flush(self):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(Packer, "flush", flush)
        with pytest.raises(KilledError):
            pack_arm(root, ARM, POOL, 64)
    (partial,) = root.path(f"arms/{ARM}/packed").glob(".64.*.partial")
    leftover = partial / {"state": ".state.npz", "rows": ".rows.bin.writing"}[damage]
    leftover.write_bytes(leftover.read_bytes()[:1_000])
    packed = pack_arm(root, ARM, POOL, 64)
    assert sha256_file(packed.path / "rows.bin") == sha256_file(packed_at_once.path / "rows.bin")
    assert packed.facts == packed_at_once.facts


def test_an_empty_shard_is_gone_over(root):
    write_text(root, ARM, [SHARDS[0], [], SHARDS[2]])
    assert pack_arm(root, ARM, POOL, 64).facts["documents"] == len(SHARDS[0]) + len(SHARDS[2])


def test_a_complete_artifact_is_reused(root):
    write_text(root, ARM, SHARDS)
    assert not pack_arm(root, ARM, POOL, 64).reused
    assert pack_arm(root, ARM, POOL, 64).reused


def test_sequence_lengths_lie_side_by_side(root):
    write_text(root, ARM, SHARDS)
    assert pack_arm(root, ARM, POOL, 64).path.name == "64"
    assert rows_of(pack_arm(root, ARM, POOL, 128)).shape[1] == 129


def test_progress_counts_shards(root):
    write_text(root, ARM, SHARDS)
    seen = []
    pack_arm(root, ARM, POOL, 64, progress=lambda stage, done, total, counters: seen.append((stage, done, total)))
    assert seen[-1] == ("pack", 3, 3)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)


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

    root.build(f"arms/{ARM}/text", make, spec={})
    with pytest.raises(InputError, match=message):
        pack_arm(root, ARM, POOL, 16)
