"""Does the verdict find what was planted, and nothing where nothing is? `python -m benchmarks.verdict planted FOLDER`

A pool of real documentation text in which a third of the documents are junk: their words shuffled, their ratings low. An
arm of the best-rated documents is compared with one taken at random, on the same budget, with several seeds each, all of it by
the real road: index, holdout, selection, tokenizer, packing, training, scoring, verdict. Then the same texts with the same
ratings permuted among them, where the ratings say nothing and no arm is better.

The holdout is a sample of the pool, junk included, which a model that never saw junk finds hard to predict; the question of
interest is about text that is none, so the better-rated half decides ("upper half"), and in the permuted pool all of it. That half
was chosen by the ratings themselves: so both arms are also judged by real documents that were never in a pool nor rated. The whole,
both halves, all deciles and those documents are printed with their intervals for either pool; README.md has what was measured.
"""

import json
import random
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from flows.sequence import Steps, prepare_arm, train_arm
from infra.local.sample_data import build_sample
from tasks.engines.builtin.score import score_outside
from tasks.records.layout import REPORT, RunFolder
from tasks.records.verdict import Difference, Target
from tasks.reports.report import write_verdict
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool, Texts, Training
from tasks.store.root import Root
from tasks.tokens.outside import encode_outside
from tasks.verdict.judge import judge
from tasks.verdict.planning import equal_budget
from tasks.verdict.shortened import check_savings

SEED = 20
FILES = 4
JUNK = 1 / 3
SHARE = 0.6  # of the documents, so that the best-rated ones are all real text
ELSEWHERE = 300  # documents that are set aside before there is a pool
TOKENS, LENGTH = 200_000, 256  # enough to learn which words follow which: what junk lacks


def documentation(folder: Path, characters: int | None = None) -> list[str]:
    """The texts of the sample in random order, of each so many characters at most."""
    sample = build_sample(folder)
    texts = [
        text[:characters]
        for file in sorted(sample.path.glob("*.parquet"))
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    ]
    random.Random(SEED).shuffle(texts)
    return texts


def small_pool(name: str, source: Path, holdout_documents: int) -> Pool:
    """A pool of few documents with a vocabulary to match."""
    return Pool(
        name=name,
        source=source.as_uri(),
        holdout_documents=holdout_documents,
        holdout_fraction=0.1,
        vocab_size=1_024,
        tokenizer_characters=2_000_000,
    )


def small_arm(name: str, select: str, share: float) -> Arm:
    """An arm of a small pool."""
    return Arm(name=name, select=select, share=share, order="shuffled", documents_per_shard=400)


def small_training(**settings: Any) -> Training:
    """A training of two layers on a CPU."""
    return Training(depth=2, window_pattern="L", precision="fp32", device="cpu", wandb="disabled", **settings)


def shuffled(text: str, rng: random.Random) -> str:
    """The text with its words in another order; white space stays where it is."""
    parts = re.split(r"(\s+)", text)
    words = parts[::2]
    rng.shuffle(words)
    parts[::2] = words
    return "".join(parts)


def write_pool(
    folder: Path,
    texts: Sequence[str],
    *,
    permuted: bool,
    spoiled: Callable[[str, random.Random], str] = shuffled,
) -> Path:
    """Raw files of a pool: a third junk, rated 0 to 1, the others 3 to 5; the same ratings on other documents if `permuted`."""
    rng, numbers = random.Random(SEED), np.random.default_rng(SEED)
    junk = numbers.random(len(texts)) < JUNK
    ratings = np.where(junk, numbers.uniform(0, 1, len(texts)), numbers.uniform(3, 5, len(texts)))
    written = [spoiled(text, rng) if bad else text for text, bad in zip(texts, junk, strict=True)]
    ratings = numbers.permutation(ratings) if permuted else ratings
    folder.mkdir(parents=True, exist_ok=True)
    for number, part in enumerate(np.array_split(np.arange(len(texts)), FILES)):
        columns: dict[str, Any] = {
            "text": [written[i] for i in part],
            "token_count": [len(written[i]) // 4 for i in part],
        }
        columns |= {name: ratings[part] for name in (PEDAGOGICAL, FACTUAL, ENGAGEMENT)}
        pq.write_table(pa.table(columns), folder / f"part_{number:05d}.parquet", row_group_size=100)
    return folder


def write_elsewhere(folder: Path, texts: Sequence[str]) -> Path:
    """Documents without ratings."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"text": texts}), folder / "texts.parquet")
    return folder


def compare(root: Root, source: Path, elsewhere: Path, name: str, seeds: int, target: Target) -> dict[str, Any]:
    """Prepare, train, score and judge both arms."""
    pool = small_pool(name, source, 300)
    arms = [small_arm(select, select, SHARE) for select in ("top", "random")]
    prepared = {arm.name: prepare_arm(root, pool, arm, Training(sequence_length=LENGTH), Steps()) for arm in arms}
    tokens = equal_budget({label: made.packed.facts for label, made in prepared.items()}, TOKENS)
    pool_id = next(iter(prepared.values())).pool_id
    outside = encode_outside(root, pool_id, Texts(name="elsewhere", url=elsewhere.as_uri())).name.rsplit("/", 1)[1]

    def train(label: str, seed: int, budget: int) -> str:
        training = small_training(sequence_length=LENGTH, batch_tokens=1_024, tokens=budget, eval_every=50)
        result = train_arm(root, prepared[label].arm_id, training, seed)
        run = RunFolder.of(result.name).id
        score_outside(root, run, outside)
        print(f"{name}: {label} seed {seed}, {budget:,} tokens: {result.facts['bpb']:.4f} bits per byte", flush=True)
        return run

    runs: dict[str, list[str]] = {label: [] for label in prepared}
    for seed in range(1, seeds + 1):
        for label in prepared:
            runs[label].append(train(label, seed, tokens[label]))
    verdict = judge(root, name, runs, target=target, outside=[outside])
    (pair,) = verdict.comparisons
    if pair.better and (budget := pair.tokens_saved.budget):
        shorter = [train(pair.better, seed, budget) for seed in range(1, seeds + 1)]
        verdict = check_savings(root, verdict, pair, shorter)
        (pair,) = verdict.comparisons
    rows: dict[str, Difference] = {row.label: row for row in pair.strata if row.kind in ("all", "half", "decile")}
    rows["elsewhere"] = pair.outside[0]
    return {
        "sentence": pair.sentence,
        "conclusion": pair.conclusion,
        "better": pair.better,
        "tokens": verdict.tokens,
        "saved": pair.tokens_saved.model_dump(),
        "deviations": {arm.label: arm.deviation for arm in verdict.arms},
        **{label: [row.difference, row.low, row.high] for label, row in rows.items()},
        "report": str(write_verdict(root, verdict).path / REPORT),
    }


def main(folder: Annotated[Path, typer.Argument(help="Where to work.")], seeds: int = 2) -> None:
    """Compare both pools and say whether the verdicts are the expected ones (exit status 1 if not)."""
    started = time.monotonic()
    texts = documentation(folder)
    elsewhere, texts = write_elsewhere(folder / "elsewhere", texts[:ELSEWHERE]), texts[ELSEWHERE:]
    root, found = Root(folder / "root"), {}
    for name, target in (("junk", "upper half"), ("permuted", "all")):
        source = write_pool(folder / name, texts, permuted=name == "permuted")
        found[name] = compare(root, source, elsewhere, name, seeds, target)
    (_, _, above), (_, below, beyond) = found["junk"]["elsewhere"], found["permuted"]["elsewhere"]
    expected = found["junk"]["better"] == "top" and found["permuted"]["conclusion"] == "not distinguishable"
    expected = expected and above < 0 and below <= 0 <= beyond
    print(json.dumps({**found, "as expected": expected, "seconds": round(time.monotonic() - started)}, indent=1))
    raise SystemExit(0 if expected else 1)
