"""Do real runs end as they should? `python -m benchmarks.verdict real FOLDER`

Three comparisons of two-layer models on small pools of documentation text, a third of it junk, without a server, by the code that plans, registers, looks and judges:

junk         the worst rated documents, all junk (their letters are shuffled), against random ones, on the better-rated half: must lose, early; runs of the better
             arm that stop at the tokens it saved then check these
equivalent   the best rated documents against random ones where ratings say nothing, within a margin
aa           one random selection under two names, 8 draws each: must not be told apart
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.verdict.planted import documentation, small_arm, small_pool, small_training, write_pool
from flows.comparison import Hands, run_comparison
from flows.sequence import Steps
from tasks.records.layout import REPORT
from tasks.records.stopping import StoppingRule
from tasks.spec import DRAWS, Arm
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonSpec

TRAINING = small_training(sequence_length=128, batch_tokens=512, tokens=32_768, recipe="quiet", eval_every=16)
SHARE, MARGIN = 0.3, 0.03
CHARACTERS = 400  # of each document
EXPECTED = {"aa": "not distinguishable", "junk": "better", "equivalent": "equivalent"}


def questions(junk: Path, permuted: Path) -> Sequence[ComparisonSpec]:
    """The three comparisons, on raw files of both pools."""
    pools = {name: small_pool(name, folder, 80) for name, folder in (("junk", junk), ("permuted", permuted))}

    def arm(name: str, select: str) -> Arm:
        return small_arm(name, select, SHARE)

    def asked(name: str, pool: str, arms: Sequence[Arm], replicates: int, **how: Any) -> ComparisonSpec:
        return ComparisonSpec(name, pools[pool], arms, range(1, 1 + replicates), TRAINING, redraw=DRAWS, **how)

    rule = StoppingRule(max_replicates=8)
    return [
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
        asked("aa", "junk", [arm("first", "random"), arm("second", "random")], 8, control="aa"),
    ]


class Aloud(Hands):
    """The hands of a comparison without a server, which say what they do."""

    def say(self, message: str) -> None:
        print(message, flush=True)


def pool_of(folder: Path, texts: Sequence[str]) -> Path:
    """Raw files of the pool that the folder is named after; those of an earlier call, if they are there."""
    if folder.exists():
        return folder
    return write_pool(folder, texts, permuted=folder.name == "permuted")


def main(
    folder: Annotated[Path, typer.Argument(help="Where to work; a second call goes on there.")],
    only: Annotated[list[str] | None, typer.Option(help="One of the comparisons.")] = None,
) -> None:
    """Run the three comparisons and say how each ended (exit status 1 if one did not end as it should)."""
    started = time.monotonic()
    texts = documentation(folder, CHARACTERS)
    root, found = Root(folder / "root"), {}
    for spec in questions(*(pool_of(folder / name, texts) for name in ("junk", "permuted"))):
        if only and spec.name not in only:
            continue
        judged = run_comparison(root, spec, Aloud(root, Steps()))
        verdict = judged.verdict
        (pair,) = verdict.comparisons
        found[spec.name] = {
            "sentence": pair.sentence,
            "as expected": pair.conclusion == EXPECTED[spec.name],
            "runs": len(verdict.runs),
            "of at most": 2 * (spec.stop.max_replicates if spec.stop else len(spec.seeds)),
            "shorter runs": len(pair.tokens_saved.checked.runs) if pair.tokens_saved.checked else 0,
            "report": str(judged.made.path / REPORT),
        }
        print(json.dumps({spec.name: found[spec.name]}, indent=1), flush=True)
    print(f"{time.monotonic() - started:,.0f} seconds")
    raise SystemExit(0 if all(each["as expected"] for each in found.values()) else 1)
