"""Near copies of held-out documents: what is found of planted edits, what is found beside them, and what the search costs.

Recall: each held-out document is edited (a third of the words that change are replaced, a third deleted, a third inserted after; or parts are
cut out; or 30 words of it are put into another document) and searched for. Others: documents of the same kind that were not made from
held-out ones, with those of them that share a passage by comparison word for word. Boilerplate: one header in 2 % of all documents.
MinHash (`--minhash`, needs `pip install datasketch`): 128 permutations of 5-word shingles, Jaccard 0.8, by datasketch's LSH.

Overhead: whole preparations of one arm with the search and without it (nothing is looked for), in turn, each in a process of its own.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.data import corpus
from infra.local.sample_data import PACKAGES, choose
from tasks.corpus.near import passages
from tasks.corpus.near.grams import WORDS
from tasks.progress import Progress

SHARE, HEADER, PASSAGE = 0.8, 0.02, 30
Pairs = set[tuple[int, int]]
Search = Callable[[Sequence[str]], Pairs]
"""Texts to pairs of a text and a held-out document that it is near to, by their numbers."""


def main(arguments: argparse.Namespace) -> None:
    """Print what is found, and unless `--repeats 0` what it costs."""
    found(arguments.held, arguments.others, arguments.minhash)
    if arguments.repeats:
        overhead(arguments.folder.absolute(), arguments)


def found(held: int, others: int, minhash: bool) -> None:
    """The table of recall and of what else is found."""
    rng = np.random.default_rng(0)
    texts = [text for _, text in choose(held + others + 400, PACKAGES)]
    texts = [texts[i] for i in rng.permutation(len(texts))]
    known, rest, donors = texts[:held], texts[held:-400], texts[-400:]
    header = " ".join(donors[0].split()[:60])
    vocabulary = " ".join(donors).split()
    edits = {
        **{f"{rate:.0%} of words": partial(edited, rate=rate, words=vocabulary, rng=rng) for rate in (0.1, 0.2, 0.3)},
        **{f"{rate:.0%} cut out": partial(cut, rate=rate, rng=rng) for rate in (0.1, 0.2, 0.3)},
        f"{PASSAGE} words in another": partial(quoted, others=donors, rng=rng),
    }
    planted = {name: [edit(text) for text in known] for name, edit in edits.items()}
    shared = Exact(known)(rest)
    ways: dict[str, Callable[[Sequence[str]], Search]] = {
        f"passages, one in {1 << sampled}": partial(ours, sampled=sampled) for sampled in (0, 1, 2)
    }
    ways |= {"MinHash": by_minhash} if minhash else {}
    words = [len(text.split()) for text in known]
    print(f"{held:,} held-out documents of {np.median(words):.0f} words, {len(rest):,} others\n")
    print(f"| recall of | {' | '.join(edits)} | others found | wrongly | MB/s of CPU |\n|{' --- |' * (len(edits) + 4)}")
    for way, make in ways.items():
        search = make(known)
        recall = [np.mean([(i, i) in pairs for i in range(held)]) for pairs in map(search, planted.values())]
        began = time.process_time()
        pairs = search(rest)
        speed = sum(map(len, rest)) / 1e6 / (time.process_time() - began)
        several = len({row for row, _ in pairs}) / len(rest)
        wrongly = len({row for row, _ in pairs} - {row for row, _ in shared}) / len(rest)
        print(
            f"| {way} | {' | '.join(f'{r:.3f}' for r in recall)} | {several:.3f} | {wrongly:.4f} | {speed:,.0f} |",
            flush=True,
        )
    print(
        f"\nBy comparison of all words, {len({row for row, _ in shared}) / len(rest):.3f} of the others share a passage."
    )
    for count in (round(HEADER * held), 1):
        with_header = [f"{header} {text}" if i < count else text for i, text in enumerate(known)]
        search = ours(with_header, passages.SAMPLED)
        plain_ones, with_it = (search(texts) for texts in (donors[1:], [f"{header} {text}" for text in donors[1:]]))
        hit = len({row for row, _ in with_it} - {row for row, _ in plain_ones}) / (len(donors) - 1)
        print(f"A header in {count} held-out documents: {hit:.2f} of other documents are found by it alone.")


def ours(known: Sequence[str], sampled: int) -> Search:
    """By passages, one in 2 to the power `sampled`."""
    passages.SAMPLED, usual = sampled, passages.SAMPLED
    looked_for = passages.Passages.of([pa.array(known, pa.large_string())], SHARE)
    passages.SAMPLED = usual

    def search(texts: Sequence[str]) -> Pairs:
        pairs: Pairs = set()
        passages.SAMPLED, usual = sampled, passages.SAMPLED
        for first in range(0, len(texts), 500):
            part = looked_for.find(pa.array(texts[first : first + 500], pa.large_string()))
            pairs |= set(zip((part.row + first).tolist(), part.document.tolist(), strict=True))
        passages.SAMPLED = usual
        return pairs

    return search


def by_minhash(known: Sequence[str]) -> Search:
    """By datasketch's MinHash and LSH."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError as error:
        raise SystemExit("--minhash needs datasketch: pip install datasketch") from error

    def sketch(text: str) -> Any:
        made, words = MinHash(num_perm=128), plain(text)
        made.update_batch([" ".join(words[i : i + 5]).encode() for i in range(max(1, len(words) - 4))])
        return made

    table = MinHashLSH(threshold=SHARE, num_perm=128)
    for number, text in enumerate(known):
        table.insert(number, sketch(text))
    return lambda texts: {(row, number) for row, text in enumerate(texts) for number in table.query(sketch(text))}


class Exact:
    """Pairs that share a passage, word by word: what hashes and samples only approach."""

    def __init__(self, known: Sequence[str]):
        self._owners: dict[tuple[str, ...], set[int]] = {}
        for number, text in enumerate(known):
            for passage in self._passages(text):
                self._owners.setdefault(passage, set()).add(number)

    def __call__(self, texts: Sequence[str]) -> Pairs:
        none: set[int] = set()
        return {
            (row, number)
            for row, text in enumerate(texts)
            for passage in self._passages(text)
            for number in self._owners.get(passage, none)
        }

    def _passages(self, text: str) -> set[tuple[str, ...]]:
        words = plain(text)
        return {tuple(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}


def plain(text: str) -> list[str]:
    """The words of a text in lower case, as passages have them."""
    return re.findall(r"[a-z0-9\x80-\U0010ffff]+", re.sub(r"[A-Z]+", lambda found: found[0].lower(), text))


def edited(text: str, rate: float, words: Sequence[str], rng: np.random.Generator) -> str:
    """A part of the words replaced, deleted, or followed by another."""
    made: list[str] = []
    for word, drawn in zip(text.split(), rng.random(len(text.split())) / rate, strict=True):
        other = words[rng.integers(len(words))]
        made += [other] if drawn < 1 / 3 else [] if drawn < 2 / 3 else [word, other] if drawn < 1 else [word]
    return " ".join(made)


def cut(text: str, rate: float, rng: np.random.Generator) -> str:
    """Three stretches of words cut out, `rate` of them together."""
    words = text.split()
    keep = np.ones(len(words), bool)
    for start in rng.integers(0, max(1, len(words)), 3):
        keep[start : start + round(rate * len(words) / 3)] = False
    return " ".join(np.array(words)[keep])


def quoted(text: str, others: Sequence[str], rng: np.random.Generator) -> str:
    """Some words of the text in the middle of another."""
    words, around = text.split(), others[rng.integers(len(others))].split()
    start = rng.integers(0, max(1, len(words) - PASSAGE))
    middle = len(around) // 2
    return " ".join([*around[:middle], *words[start : start + PASSAGE], *around[middle:]])


def overhead(folder: Path, arguments: argparse.Namespace) -> None:
    """Measure preparations with the search and without it, in turn, and print medians and ratios."""
    raw = corpus.write(folder / "store", arguments.files, arguments.rows)
    measured: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    for repeat in range(arguments.repeats):
        for way in list(measured)[:: 1 if repeat % 2 else -1]:
            command = [
                sys.executable,
                "-m",
                "benchmarks.data.near",
                way,
                raw.as_uri(),
                str(folder / "root"),
                str(arguments.share),
            ]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=dict(os.environ))
            measured[way].append(json.loads(done.stdout))
            print(f"# {repeat + 1}/{arguments.repeats} {way}: {measured[way][-1]}", flush=True)
            shutil.rmtree(folder / "root")
    keys = list(measured["with"][0])
    print(
        f"\n{arguments.files * arguments.rows:,} documents, share {arguments.share:g}, medians of {arguments.repeats}\n"
    )
    print(f"| | {' | '.join(keys)} |\n|{' --- |' * (len(keys) + 1)}")
    medians = {way: {key: median(each[key] for each in runs) for key in keys} for way, runs in measured.items()}
    for way, values in medians.items():
        print(f"| {way} | {' | '.join(f'{values[key]:.2f}' for key in keys)} |")
    ratios = {
        key: median(a[key] / b[key] for a, b in zip(measured["with"], measured["without"], strict=True)) for key in keys
    }
    print(f"| ratio | {' | '.join(f'{ratios[key]:.2f}' for key in keys)} |")


def prepare(way: str, raw: str, root: Path, share: float) -> dict[str, float]:
    """Seconds of wall and CPU of a preparation in this process, and of the pass over the text alone."""
    from flows.sequence import Steps, prepare_arm
    from tasks.spec import Arm, Pool, Training
    from tasks.store.root import Root

    taken: dict[str, float] = {}

    class Timed(Steps):
        def spread(self, title: str, work: Callable[[Progress, Any], Any]) -> Any:
            began, used = time.monotonic(), time.process_time()
            made = super().spread(title, work)
            if title.startswith("Text"):
                taken.update({"text pass s": time.monotonic() - began, "its CPU s": time.process_time() - used})
            return made

    if way == "without":
        of = passages.Passages.of
        passages.Passages.of = classmethod(lambda cls, parts, share: of([], share))
        passages.Passages.find = lambda self, texts: passages.Found.concat([])
    pool = Pool(source=raw, tokenizer_characters=20_000_000, workers=2)
    arm = Arm(share=share) if share < 1 else Arm(name="all", select="all")
    began, used = time.monotonic(), time.process_time()
    prepare_arm(Root(root), pool, arm, Training(sequence_length=2048), Timed())
    return {"preparation s": time.monotonic() - began, "CPU s": time.process_time() - used, **taken}


if __name__ == "__main__":
    kind, source, place, part = sys.argv[1:]
    print(json.dumps(prepare(kind, source, Path(place), float(part))))
