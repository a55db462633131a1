"""Do real runs end as they should? `python -m benchmarks.verdict real FOLDER`

Three comparisons of two-layer models on the pools of `planted`, in this process, by the code that plans, registers, looks and judges:

aa           one random selection under two names, 8 draws each: must not be told apart
junk         the worst rated documents, all junk, against random ones, on the better-rated half: must lose, early; runs of the better
             arm that stop at the tokens it saved then check these
equivalent   the best rated documents against random ones where ratings say nothing, within a margin
"""

import json
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pyarrow.parquet as pq
import typer

from benchmarks.verdict.planted import LENGTH, SEED, write_pool
from flows.sequence import Steps, prepare_arm, train_arm
from infra.local.sample_data import build_sample
from tasks.records.layout import REPORT
from tasks.records.stopping import StoppingRule
from tasks.records.verdict import Verdict
from tasks.reports.report import write_verdict
from tasks.spec import DRAWS, Arm, Pool, Training
from tasks.store.root import Root
from tasks.verdict import looks
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec
from tasks.verdict.judge import judge
from tasks.verdict.shortened import check_savings

TRAINING = Training(
    depth=2,
    sequence_length=LENGTH,
    window_pattern="L",
    batch_tokens=1_024,
    tokens=65_536,
    recipe="quiet",
    precision="fp32",
    device="cpu",
    eval_every=8,
    wandb="disabled",
)
SHARE, MARGIN = 0.3, 0.01
EXPECTED = {"aa": "not distinguishable", "junk": "better", "equivalent": "equivalent"}


def questions(junk: Path, permuted: Path) -> Sequence[ComparisonSpec]:
    """The three comparisons, on raw files of both pools."""
    pools = {
        name: Pool(
            name=name,
            source=folder.as_uri(),
            holdout_documents=200,
            holdout_fraction=0.1,
            vocab_size=1_024,
            tokenizer_characters=2_000_000,
        )
        for name, folder in (("junk", junk), ("permuted", permuted))
    }

    def arm(name: str, select: str) -> Arm:
        return Arm(name=name, select=select, share=SHARE, order="shuffled", documents_per_shard=400)

    def asked(name: str, pool: str, arms: Sequence[Arm], replicates: int, **how: Any) -> ComparisonSpec:
        return ComparisonSpec(name, pools[pool], arms, range(1, 1 + replicates), TRAINING, redraw=DRAWS, **how)

    rule = StoppingRule(max_replicates=8)
    return [
        asked("aa", "junk", [arm("first", "random"), arm("second", "random")], 8, control="aa"),
        asked(
            "junk",
            "junk",
            [arm("worst", "bottom"), arm("random", "random")],
            3,
            stop=rule,
            target="upper half",
            check_savings=True,
        ),
        asked(
            "equivalent",
            "permuted",
            [arm("top", "top"), arm("random", "random")],
            3,
            stop=rule.model_copy(update={"margin": MARGIN}),
        ),
    ]


def compare(root: Root, spec: ComparisonSpec) -> Verdict:
    """What the flow `compare` does, without children."""
    spec.require_matched()
    for each in looks.rounds(spec):
        drawn = [draw for arm in each.arms for draw in each.draws_of(arm)]
        prepared = [prepare_arm(root, each.pool, arm, each.training, Steps()) for arm in drawn]
        plan = ComparisonPlan.make(root, each, prepared[0].pool_id)
        looks.register(root, plan)
        train(root, plan)
        level = looks.level_of_look(root, plan) or looks.LEVEL
        verdict = looks.take(
            root,
            plan,
            judge(
                root,
                spec.name,
                plan.runs_by_arm,
                target=spec.target,
                control=spec.control,
                strata_by=spec.score,
                level=level,
            ),
        )
        if looks.is_decided(verdict):
            break
    for pair in verdict.comparisons if spec.check_savings else ():
        if (shorter := plan.shortened(pair)).runs:
            train(root, shorter)
            verdict = check_savings(root, verdict, pair, [run.id for run in shorter.runs], spec.score)
    return verdict


def train(root: Root, plan: ComparisonPlan) -> None:
    """The missing runs of a plan, one after another."""
    for run in plan.missing(root):
        result = train_arm(root, run.arm_id, run.experiment.training, run.experiment.seed, held=run.experiment.held)
        print(f"{run.id}: {result.facts['tokens']:,} tokens, {result.facts['bpb']:.4f} bits per byte", flush=True)


def main(folder: Annotated[Path, typer.Argument(help="Where to work.")]) -> None:
    """Run the three comparisons and say how each ended (exit status 1 if one did not end as it should)."""
    started = time.monotonic()
    sample = build_sample(folder)
    texts = [
        text
        for file in sorted(sample.path.glob("*.parquet"))
        for text in pq.read_table(file, columns=["text"])["text"].to_pylist()
    ]
    random.Random(SEED).shuffle(texts)
    root, found = Root(folder / "root"), {}
    pools = [write_pool(folder / name, texts, permuted=name == "permuted") for name in ("junk", "permuted")]
    for spec in questions(*pools):
        verdict = compare(root, spec)
        (pair,) = verdict.comparisons
        found[spec.name] = {
            "sentence": pair.sentence,
            "as expected": pair.conclusion == EXPECTED[spec.name],
            "runs": len(verdict.runs),
            "shorter runs": len(pair.tokens_saved.checked.runs) if pair.tokens_saved.checked else 0,
            "of at most": 2 * (spec.stop.max_replicates if spec.stop else len(spec.seeds)),
            "report": str(write_verdict(root, verdict).path / REPORT),
        }
        print(json.dumps({spec.name: found[spec.name]}, indent=1), flush=True)
    print(f"{time.monotonic() - started:,.0f} seconds")
    raise SystemExit(0 if all(each["as expected"] for each in found.values()) else 1)
