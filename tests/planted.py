"""Finished runs whose losses are planted, for whatever judges, shows or lists them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tasks.records.layout import ArmFolder, run_id
from tasks.records.near import HOLDOUT, NearCopies
from tasks.records.scores import summarize
from tasks.records.stopping import StoppingRule
from tasks.records.verdict import Verdict
from tasks.spec import DRAWS, Arm, Experiment, Pool, Training
from tasks.store.artifact import Manifest
from tasks.store.root import Root
from tasks.verdict import looks
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
from tasks.verdict.judge import judge

POOL = "pool-0123456789"
DOCUMENTS = 600
BLOCKS = 30
TOKENS = 1_000_000
TRAINING = Training(depth=4, sequence_length=256, tokens=TOKENS, precision="fp32", device="cpu")


class Bench:
    """A root with finished runs on one holdout, whose losses are planted. `hostile`: a source of documents."""

    def __init__(self, folder: Path, hostile: str = "CC-MAIN"):
        self.root = Root(folder)
        random = np.random.default_rng(5)
        self.bytes = np.exp(random.normal(7.5, 1, DOCUMENTS)).astype(np.int64) + 1
        self.score = random.normal(3, 1, DOCUMENTS)
        self.cluster = np.arange(DOCUMENTS) // (DOCUMENTS // BLOCKS)
        self.base = random.normal(1.2, 0.2, DOCUMENTS)  # bits per byte of each document, for every model
        self.source = np.where(np.arange(DOCUMENTS) % 3 == 0, hostile, "books")

    def experiment(
        self,
        arm: str,
        seed: int,
        training: Training = TRAINING,
        pool: Pool | None = None,
        epochs: int = 1,
        draw: int = 42,
    ) -> Experiment:
        select = "top" if arm.startswith("top") else "random"
        taken = Arm(name=arm, select=select, epochs=epochs, seed=draw)
        return Experiment(pool=pool or Pool(), arm=taken, training=training, seed=seed)

    def run(
        self,
        arm: str,
        seed: int,
        offset: float = 0.0,
        spread: float = 0.001,
        by_score: float = 0.0,
        training: Training = TRAINING,
        pool: Pool | None = None,
        epochs: int = 1,
        inputs: dict | None = None,
        facts: dict | None = None,
        arm_id: str | None = None,
        name: str = "result",
        draw: int = 42,
        learned: Sequence[int] = (),
    ) -> str:
        """Add a run; returns its id. A document costs base + offset + by_score * its score + what the seed does, bits per byte; one that
        was `learned` by heart a third less.
        """
        experiment = self.experiment(arm, seed, training, pool, epochs, draw)
        arm_id = arm_id or (f"{arm}-arm" if draw == 42 else f"{arm}-draw{draw}")
        run = run_id(experiment, arm_id)
        random = np.random.default_rng([seed, *arm.encode()])
        bpb = self.base + offset + by_score * np.nan_to_num(self.score) + spread * random.normal()
        bpb = bpb + 0.003 * np.random.default_rng([*arm.encode()]).normal(size=DOCUMENTS)
        bpb[list(learned)] *= 2 / 3
        nats = bpb * self.bytes * np.log(2)
        rated = np.isfinite(self.score)
        decile = np.where(rated, np.argsort(np.argsort(self.score)) * 10 // max(rated.sum(), 1), -1)
        table = pa.table(
            {
                "document": np.arange(DOCUMENTS),
                "cluster": self.cluster.astype(np.int32),
                "score": self.score,
                "decile": decile.astype(np.int8),
                "bytes": self.bytes,
                "tokens": self.bytes // 4,
                "nats": nats,
                "source": self.source,
            }
        )
        final = float(nats.sum() / self.bytes.sum() / np.log(2))
        lines = []
        for step in range(1, 41):
            tokens = step * TOKENS // 40
            lines.append({"step": step, "kind": "train", "time": 1e9 + step, "tokens": tokens, "loss": 3 + 2 / step})
            lines[-1] |= {"tokens_per_second": 25_000.0, "mfu": 0.4}
            if step % 5 == 0:
                value = final + 0.5 * (np.log(TOKENS) - np.log(tokens))
                lines.append({"step": step, "kind": "eval", "time": 1e9 + step, "tokens": tokens, "bpb": value})
        by_decile = summarize(table)["bpb_by_decile"]
        known = {"seed": seed, "bpb": final, "bpb_by_decile": by_decile, "tokens": TOKENS, "steps": 40, "code": "0.1.0"}
        known |= {"tokens_per_second": 25_000.0, "wall_seconds": 40.0, "device": "cpu", "batch_tokens": 25_000}
        known |= {
            "trained_documents": 1_234,
            "text_share": 0.955,
            "mean_score": 4.25,
            "arm_mean_score": 4.0,
            "epochs": epochs,
        }
        known |= {"engine": "builtin", "scored_by": "builtin", "compute": "cpu, fp32, autograd", "gpus": 1}
        known |= {"torch": "2.13.0+cpu", "cuda": "none", "training_version": 1}
        samples = [{"document": 1, "score": 2.5, "prompt": "Water <b>", "text": f"boils, says {arm} </script>"}]

        def make(work) -> None:
            pq.write_table(table, work.temporary("scores.parquet"))
            work.finish("scores.parquet")
            for file, text in (
                ("metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines)),
                ("samples.json", json.dumps(samples)),
                ("summary.json", json.dumps(known)),
            ):
                work.temporary(file).write_text(text)
                work.finish(file)
            work.facts.update({name: value for name, value in (known | (facts or {})).items() if value is not None})

        read = {"packed": f"packed-{arm}", "tokenizer": "tok", "evaluation": "eval", "arm": arm_id, "pool": POOL}
        self.root.build(f"runs/{run}/{name}", make, spec=experiment.identity(), inputs=read | (inputs or {}))
        return run

    def near(self, arm: str, leaked: Sequence[int], *, what: str = HOLDOUT, removed: bool = False) -> None:
        """Add what was found of near copies in an arm, one copy each of the documents `leaked`."""
        documents = np.array(sorted(leaked), np.int64)
        found = NearCopies.of(np.arange(len(documents)), documents, np.ones(len(documents), np.float32))
        self.root.build(
            ArmFolder(f"{arm}-arm").near(what),
            lambda work: found.write(work, DOCUMENTS, 0, removed=removed),
            spec={},
        )

    def packed(self, name: str, rows: str = "rows") -> Manifest:
        """Add packed rows, which are only ever compared."""

        def make(work) -> None:
            work.temporary("rows.bin").write_text(rows)
            work.finish("rows.bin")

        return self.root.build(name, make, spec={}).manifest

    def core(
        self, runs: list[str], seed: int = 0, offset: float = 0.0, bundle: str = "b", names=("arc", "squad")
    ) -> np.ndarray:
        """Add `runs/<run>/core` to every run; returns the centered accuracies, (runs, 1 + tasks)."""
        random = np.random.default_rng(seed)
        rows = []
        for run in runs:
            values = 0.2 + offset + 0.05 * random.normal(size=len(names))
            tasks = {n: {"accuracy": float(v), "centered": float(v)} for n, v in zip(names, values, strict=True)}
            facts = {"core": float(values.mean()), "tasks": tasks}
            self.root.build(
                f"runs/{run}/core",
                lambda work, facts=facts: work.facts.update(facts),
                spec={"max_per_task": None},
                inputs={"bundle": bundle},
            )
            rows.append([facts["core"], *values])
        return np.array(rows)

    def arm(self, arm: str, rows: range, texts: Callable[[int], str], shards: int = 2) -> None:
        """Add what an arm took: rows of one blob, in that order, as text shards of which the last is the holdout's."""
        rows = list(rows)

        def make(work) -> None:
            for number, part in enumerate([*np.array_split(np.array(rows), shards), np.array([0])]):
                name = f"shard_{number:05d}.parquet"
                content = {"text": [texts(int(row)) for row in part] if number < shards else ["the holdout"]}
                pq.write_table(pa.table(content), work.temporary(name), row_group_size=4)
                work.finish(name, len(part))
            taken = {
                "rank": range(len(rows)),
                "blob": pa.array(["a.parquet"] * len(rows)).dictionary_encode(),
                "row": rows,
            }
            taken |= {"score": [5 - row / 100 for row in rows], "tokens": [10] * len(rows)}
            pq.write_table(pa.table(taken), work.temporary("documents.parquet"))
            work.finish("documents.parquet", len(rows))
            work.facts.update(documents=len(rows), bytes=12_345)

        self.root.build(f"arms/{arm}-arm/text", make, spec={"name": arm}, inputs={"pool": POOL})

    def pool(self) -> None:
        """Add the pool's index and encoded holdout."""

        def index(work) -> None:
            work.temporary("files.parquet").write_bytes(b"x")
            work.finish("files.parquet")

        def evaluation(work) -> None:
            pq.write_table(pa.table({"score": self.score}), work.temporary("documents.parquet"))
            work.finish("documents.parquet")

        self.root.build(
            f"pools/{POOL}/index", index, spec=Pool(source="az://raw/<i>docs").identity(), inputs={"pool": POOL}
        )
        self.root.build(f"pools/{POOL}/evaluation", evaluation, spec={})

    def arms(self, seeds: int = 3, **offsets: float) -> dict[str, list[str]]:
        """{arm: its runs} with planted offsets in bits per byte."""
        return {arm: [self.run(arm, seed, offset) for seed in range(1, seeds + 1)] for arm, offset in offsets.items()}


def plan_of(bench: Bench, replicates: int, training: Training = TRAINING, **changes: Any) -> ComparisonPlan:
    """A comparison of two planted arms with so many replicates."""
    runs = []
    for arm in ("top16", "rand16"):
        for seed in range(1, replicates + 1):
            experiment = bench.experiment(arm, seed, training)
            runs.append(PlannedRun(run_id(experiment, f"{arm}-arm"), f"{arm}-arm", experiment))
    arms = [runs[0].experiment.arm, runs[-1].experiment.arm]
    given = {"redraw": DRAWS} | changes
    return ComparisonPlan(
        ComparisonSpec("v", Pool(), arms, range(1, replicates + 1), training, **given), POOL, tuple(runs)
    )


def look(
    bench: Bench, plan: ComparisonPlan, offset: float = 0.0, *, last: bool = False, spread: float = 0.001
) -> Verdict:
    """Register, train what is missing (the first arm `offset` above the other), judge, and take a look."""
    looks.register(bench.root, plan)
    for run in plan.missing(bench.root):
        arm = run.experiment.arm.name
        bench.run(arm, run.experiment.seed, offset * (arm == "top16"), spread, training=run.experiment.training)
    level = looks.level_of_look(bench.root, plan) or looks.LEVEL
    return looks.take(bench.root, plan, judge(bench.root, "v", plan.runs_by_arm, level=level), last=last)


def in_rounds(bench: Bench, rule: StoppingRule, offset: float = 0.0, spread: float = 0.001) -> list[Verdict]:
    """The verdict of each look until it is decided."""
    found: list[Verdict] = []
    for each in looks.rounds(plan_of(bench, 2, stop=rule).spec):
        found.append(look(bench, plan_of(bench, len(each.seeds), stop=rule), offset, spread=spread))
        if looks.is_decided(found[-1]):
            break
    return found
