"""`python -m tests.chaos.harness`: an undisturbed experiment, then one for each fault at a random moment, and a table of the outcomes.

Real parts only: a Prefect server on PostgreSQL, Azurite behind a proxy, a worker for each pool, the product's deployments,
reaper and zombie rule. After a fault the experiment must complete by itself, with the packed rows and weights of the
undisturbed one, and without rereading what a finished stage had read; or, where data has changed, stop with a sentence that
names it. Exit status 1 if one does not.
"""

import argparse
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from infra.local import azurite
from infra.local.stack import SAMPLE_CONTAINER, SAMPLE_NAME
from tasks.records.metrics import read_metrics
from tasks.store.artifact import fingerprint
from tests.chaos.harness.arm import BAD, ArmRun, Change, Left
from tests.chaos.harness.faults import KINDS, Harm, Kind, small_disk
from tests.chaos.harness.reads import ROOTS, Read, by_stage, read_again
from tests.chaos.harness.rig import Rig, rig

SHORT = ("prepare-killed", "trainer-killed", "store-resets", "packed-byte")
COLUMNS = ("fault", "moment", "noticed s", "goes on s", "steps repeated", "read again", "equal", "in all s")


@dataclass(frozen=True)
class Outcome:
    """A row of the table. `noticed`: seconds until a run or task says so; `on`: until it works again; None: neither was needed."""

    fault: str
    moment: str
    noticed: float | None
    on: float | None
    repeated: int | None
    again: int | None
    good: bool
    seconds: float
    remark: str = ""


@dataclass(frozen=True)
class Reference:
    """The undisturbed experiment."""

    left: Left
    steps: int
    preparing: float
    reads: dict[str, Counter[Read]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the faults that were asked for and print the table."""
    parser = argparse.ArgumentParser(
        "python -m tests.chaos.harness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, help="seed of the random moments (default: one that is printed)")
    parser.add_argument("--faults", default="all", help=f"a comma-separated choice of {', '.join(KINDS)}")
    parser.add_argument("--repeats", type=int, default=1, help="how often to inject each fault")
    parser.add_argument("--short", action="store_true", help=f"only {', '.join(SHORT)}")
    parser.add_argument("--as-installed", action="store_true", help="keep the reaper's intervals as installed")
    parser.add_argument(
        "--home", type=Path, help="folder for everything (default: a temporary one); its content is deleted"
    )
    parser.add_argument("--json", type=Path, help="also write the outcomes to this file")
    given = parser.parse_args(arguments)
    names = list(SHORT) if given.short else list(KINDS) if given.faults == "all" else given.faults.split(",")
    if unknown := [name for name in names if name not in KINDS]:
        parser.error(f"there is no fault {', '.join(unknown)}: choose among {', '.join(KINDS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the parts are stopped on the way out
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    outcomes = chaos(names, seed, given.repeats, given.home, quick=not given.as_installed)
    print("\n" + table(outcomes), flush=True)
    if given.json:
        found = {"seed": seed, "outcomes": [asdict(outcome) for outcome in outcomes]}
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(outcome.good for outcome in outcomes) else 1


def chaos(names: Sequence[str], seed: int, repeats: int, home: Path | None, quick: bool = True) -> list[Outcome]:
    """Start the parts, inject each fault `repeats` times, and stop the parts."""
    say(f"seed {seed}")
    if quick:
        say("the reaper waits 5 s before a first rerun (installed: 60 s); all else as installed")
    with contextlib.ExitStack() as stack:
        # PostgreSQL's account must reach its folder, which it cannot below a private one.
        folder = home or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-")))
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        parts = stack.enter_context(rig(folder / "rig", say, quick=quick))
        reference = undisturbed(parts)
        outcomes = []
        for number, name in enumerate(name for name in names for _ in range(repeats)):
            outcomes.append(disturbed(parts, KINDS[name], number, random.Random(f"{seed} {number} {name}"), reference))
            say(" | ".join(row(outcomes[-1])) + (f" | {outcomes[-1].remark}" if outcomes[-1].remark else ""))
    return outcomes


def undisturbed(parts: Rig) -> Reference:
    """The experiment that all others are compared with."""
    first = ArmRun(parts.server, parts.home / "root" / "reference", f"az://{SAMPLE_CONTAINER}/{SAMPLE_NAME}")
    first.start()
    began = time.time()
    first.running("prepare")
    working = time.time()
    state = first.finish()
    if state["type"] != "COMPLETED":
        raise SystemExit(f"The undisturbed experiment is {state['name']}: {state['message']}; see {parts.home}.")
    packed = first.made("arms/*/packed/*/manifest.json")[0].stat().st_mtime
    steps = first.step()
    say(f"undisturbed: {time.time() - began:.0f} s, of which {packed - working:.1f} s in prepare; {steps} steps")
    return Reference(first.left(), steps, packed - working, by_stage(parts.proxy.answers, first))


def disturbed(parts: Rig, kind: Kind, number: int, draw: random.Random, reference: Reference) -> Outcome:
    """One experiment with one fault."""
    began = time.monotonic()
    root = parts.home / "root" / f"{number:02d}-{kind.name}"
    source = f"az://{SAMPLE_CONTAINER}/{SAMPLE_NAME}"
    if kind.expected == "refused":  # it writes to the blobs: its own copy
        source = f"az://{SAMPLE_CONTAINER}/{root.name}"
        sample = next((parts.home / "sample").rglob("*.parquet")).parent
        azurite.upload(parts.blob_port, SAMPLE_CONTAINER, root.name, sample, parts.stack.store_key)
    url = f"az://{ROOTS}/{root.name}" if kind.in_store else ""
    if url:
        root = parts.cache("first") / fingerprint(url)
    run = ArmRun(parts.server, root, source, patience=100.0 if parts.quick else 150.0, url=url)
    reads = sum(counted.total() for counted in reference.reads.values())
    harm = Harm(parts, run, draw, reference.steps, reference.preparing, reads)
    try:
        with small_disk(root) if kind.small_disk else contextlib.nullcontext():
            run.start()
            first = run.id
            kind.fault(harm)
            state = run.finish()
            good, remark = judge(kind, run, state, reference)
            changes = run.changes() if run.id == first else []
            noticed, on = reaction(changes, run, harm)
            repeated = steps_repeated(run, harm)
            again = None
            if kind.expected == "completed":
                again = read_again(parts.proxy.answers, harm.at, harm.finished, reference.reads)
    except (AssertionError, TimeoutError, RuntimeError, OSError) as error:
        traceback.print_exc()
        return Outcome(kind.name, harm.moment, None, None, None, None, False, time.monotonic() - began, str(error))
    good = good and not again
    return Outcome(kind.name, harm.moment, noticed, on, repeated, again, good, time.monotonic() - began, remark)


def judge(kind: Kind, run: ArmRun, state: dict, reference: Reference) -> tuple[bool, str]:
    """Whether the experiment ended as it must, and what there is to say about it."""
    message = state.get("message") or ""
    if kind.expected == "refused":
        packed = run.made("arms/*/packed/*/manifest.json")
        return state["type"] == "FAILED" and kind.ended_by in message and not packed, message[-200:]
    if state["type"] != "COMPLETED":
        return False, f"{state['name']}: {message[-300:]}"
    left = run.left()
    differs = [name for name, value in asdict(left).items() if value != getattr(reference.left, name)]
    return not differs, f"other {', '.join(differs)}" if differs else ""


def reaction(changes: Sequence[Change], run: ArmRun, harm: Harm) -> tuple[float | None, float | None]:
    """Seconds from the fault until the first state that tells of it, and until what told it runs again."""
    told = next((c for c in changes if c.at >= harm.at and (c.type in BAD or c.name == "AwaitingRetry")), None)
    if told is None:
        return None, None
    again = [c for c in changes if c.at > told.at and c.type == "RUNNING"]
    own = next((c.at for c in again if c.run == told.run), None)  # a finished preparation is not run again
    on = own or next((c.at for c in again if c.run == run.id), None)
    return round(told.at - harm.at, 1), round(on - harm.at, 1) if on else None


def steps_repeated(run: ArmRun, harm: Harm) -> int | None:
    """Steps that were done, lost and done again; None when the training had not begun or was not interrupted."""
    events = [line for path in run.made("runs/*/metrics.jsonl") for line in read_metrics(path)]
    resumed = [line for line in events if line.get("event") in ("resumed", "started") and line["time"] > harm.at]
    return max(0, harm.seen - resumed[-1]["step"]) if resumed and harm.seen else None


def row(outcome: Outcome) -> list[str]:
    """The cells of a row."""
    numbers = (outcome.noticed, outcome.on, outcome.repeated, outcome.again)
    cells = ["-" if number is None else f"{number:,}" for number in numbers]
    return [outcome.fault, outcome.moment, *cells, "yes" if outcome.good else "NO", f"{outcome.seconds:.0f}"]


def table(outcomes: Sequence[Outcome]) -> str:
    """All rows, as Markdown."""
    rows = [list(COLUMNS), ["---"] * len(COLUMNS), *(row(outcome) for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in rows)


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
