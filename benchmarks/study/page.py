"""The part of the study's README that says what was found: sentences, arms and cost, written anew by `python -m benchmarks.study show`."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.study.kept import QUESTION, RESULTS, by_hand, published_ladders, published_rungs, trained_for
from benchmarks.study.run import DEPTHS, EXPERIMENTS, LADDERS
from tasks.records.ladder import Forecast, Ladder
from tasks.records.layout import SCORES
from tasks.records.verdict import Comparison, Verdict

README = Path(__file__).with_name("README.md")
DECIDES = {"best": "the pool", "handbook": "the book", "questions": "questions"}
"""{experiment that is made at several depths: what decides there}"""
BEGIN, END = "<!-- found: written by `python -m benchmarks.study show` -->", "<!-- /found -->"


def write(verdicts: Mapping[str, Verdict], readme: Path = README, results: Path = RESULTS) -> None:
    """Put what was found between the marks of the README. `results`: where it is kept."""
    before, _, rest = readme.read_text().partition(BEGIN)
    found = "\n".join(lines(verdicts, results))
    readme.write_text(f"{before}{BEGIN}\n{found}\n{END}{rest.partition(END)[2]}")


def lines(verdicts: Mapping[str, Verdict], results: Path = RESULTS) -> Iterator[str]:
    """Markdown: the first question at all depths, the ladders, a section an experiment, what all of it cost and one difference by hand."""
    with (results / "runs.csv").open(newline="") as file:
        runs = {row["run"]: row for row in csv.DictReader(file)}
    yield from (
        "",
        "### Best less random at each depth",
        "",
        *_picture("depths", "Best less random by depth"),
        *_depths(verdicts),
    )
    for name, ladder in published_ladders(results).items():
        yield from (
            "",
            f"### {question(name)}",
            "",
            *_picture(name, "Difference against compute, predicted and measured"),
        )
        yield from _ladder(name, ladder, verdicts.get(LADDERS[name]))
    for name, verdict in verdicts.items():
        if name not in LADDERS.values():
            yield from ("", f"### {question(name)}", "")
            if name == "handbook-ratings":
                yield from _picture(
                    "handbook", "Differences of each arm from a random third on the book, with intervals"
                )
            yield from _experiment(name, verdict, results)
    yield from ("", "### What it cost", "", *_cost({**verdicts, **published_rungs(results)}, runs))
    if QUESTION in verdicts:
        (pair,) = verdicts[QUESTION].comparisons
        yield from ("", "### One figure by hand", "")
        yield (
            f"`kept.by_hand` adds up `results/{SCORES}` in plain Python, without the code of verdicts: "
            f"{pair.a} less {pair.b} is {by_hand(results / SCORES, pair.a, pair.b):+.6f} bits per byte; the verdict says {pair.difference:+.6f}."
        )


def _picture(name: str, alt: str) -> Iterator[str]:
    """One of `figures`, light or dark as the page is."""
    yield "<picture>"
    yield f'  <source media="(prefers-color-scheme: dark)" srcset="figures/{name}-dark.svg">'
    yield f'  <img alt="{alt}" src="figures/{name}-light.svg">'
    yield "</picture>"
    yield ""


def _depths(verdicts: Mapping[str, Verdict]) -> Iterator[str]:
    """The differences of the two arms on each target at each depth."""
    yield "| decided by | layers | best | random | best less random | interval | runs an arm | concluded |"
    yield "| --- | --- | --- | --- | --- | --- | --- | --- |"
    for target, words in DECIDES.items():
        for ending, depth in DEPTHS.items():
            if (verdict := verdicts.get(f"{target}{ending}")) is None:
                continue
            (pair,) = verdict.comparisons
            scored = {arm.label: _mean(arm.target_by_seed or arm.bpb_by_seed) for arm in verdict.arms}
            found = f"{pair.better} is better" if pair.better else pair.conclusion
            yield (
                f"| {words} | {depth} | {scored[pair.a]:.4f} | {scored[pair.b]:.4f} | {pair.difference:+.4f} | {_interval(pair)} "
                f"| {pair.seeds} | {found} |"
            )


def _ladder(name: str, ladder: Ladder, measured: Verdict | None) -> Iterator[str]:
    """What each depth found, what they predict at the target, and what was measured there."""
    (forecast,) = ladder.forecasts
    yield f"{ladder.ratio:.3g} trained tokens for each parameter, {ladder.replicates} replicates an arm. [Experiment](experiments/{name}.yaml), [report](results/{name}.html), [ladder](results/{name}.json)."
    yield ""
    yield f"| layers | tokens | FLOPs of a run | {forecast.a} less {forecast.b} | interval |"
    yield "| --- | --- | --- | --- | --- |"
    for rung, scale in zip(forecast.rungs, ladder.scales, strict=True):
        ends = "unknown" if rung.low is None or rung.high is None else f"{rung.low:+.4f} to {rung.high:+.4f}"
        yield f"| {rung.depth} | {scale.tokens:,} | {rung.flops:.2g} | {rung.difference:+.4f} | {ends} |"
    target = f"| {ladder.target.depth}, predicted | {ladder.target.tokens:,} | {ladder.target.flops:.2g} "
    yield f"{target}| {forecast.difference:+.4f} | {forecast.low:+.4f} to {forecast.high:+.4f} ({ladder.level:.0%}) |"
    if measured:
        (pair,) = measured.comparisons
        yield f"| {ladder.target.depth}, measured | {measured.tokens:,} | | {pair.difference:+.4f} | {_interval(pair)} |"
    yield ""
    yield from (f"> {sentence}" for sentence in ladder.sentences)
    if measured:
        yield ""
        yield backtested(forecast, measured.comparisons[0], ladder.target.depth)


def backtested(forecast: Forecast, measured: Comparison, depth: int) -> str:
    """Whether the interval of a prediction holds what was measured, in a sentence."""
    held = "holds" if forecast.low <= measured.difference <= forecast.high else "misses"
    return (
        f"Measured at d{depth}: {measured.difference:+.4f}, {abs(measured.difference - forecast.difference):.4f} from the middle of the "
        f"prediction. Its interval {held} it."
    )


def question(name: str) -> str:
    """What an experiment asks: the comment at the head of its file."""
    return (EXPERIMENTS / f"{name}.yaml").read_text().splitlines()[0].removeprefix("# ")


def _experiment(name: str, verdict: Verdict, results: Path) -> Iterator[str]:
    registered = verdict.registered.plan if verdict.registered else None
    rule = registered.stop if registered else None
    said = (
        f"looks at {', '.join(map(str, rule.looks))} replicates an arm, margin {rule.margin:g}"
        if rule
        else f"{registered.replicates} replicates an arm, one look"
        if registered
        else "nothing"
    )
    before = registered.runs_before if registered else 0
    when = (
        "before the first run"
        if not before
        else f"when {before} of its {len(verdict.runs)} runs were there from other experiments"
    )
    target = f"`{verdict.target}`" + (" of the holdout" if verdict.target == "all" else "")
    report = f"[report](results/{name}.html), " if (results / f"{name}.html").exists() else ""
    yield (
        f"Registered {when}: target {target}; {said}. "
        f"[Experiment](experiments/{name}.yaml), {report}[verdict](results/{name}.json)."
    )
    yield ""
    if len(verdict.comparisons) <= 3:
        yield from (f"> {sentence}" for sentence in verdict.sentences)
    else:
        yield from _pairs(verdict)
    decides = verdict.target != "all"
    yield ""
    yield f"| arm | runs | bits per byte{' on what decides' if decides else ''} | sd of a run | documents trained on | epochs |"
    yield "| --- | --- | --- | --- | --- | --- |"
    for arm in sorted(verdict.arms, key=lambda arm: _mean(arm.target_by_seed or arm.bpb_by_seed)):
        mean = _mean(arm.target_by_seed or arm.bpb_by_seed)
        spread = "" if arm.deviation is None else f"{arm.deviation:.4f}"
        documents = "" if arm.trained_documents is None else f"{arm.trained_documents:,.0f}"
        epochs = "" if arm.epochs is None else f"{arm.epochs:.2f}"
        yield f"| {arm.label} | {len(arm.runs)} | {mean:.4f} | {spread} | {documents} | {epochs} |"


def _pairs(verdict: Verdict) -> Iterator[str]:
    """All pairs in a table, instead of as many sentences."""
    yield f"All {len(verdict.comparisons)} pairs, intervals adjusted so that all hold together at {verdict.level:.0%}:"
    yield ""
    yield "| less | bits per byte | interval | concluded |"
    yield "| --- | --- | --- | --- |"
    for pair in sorted(verdict.comparisons, key=lambda pair: pair.difference):
        better = f"{pair.better} is better" if pair.better else pair.conclusion
        yield f"| {pair.a} − {pair.b} | {pair.difference:+.4f} | {_interval(pair)} | {better} |"


def _interval(pair: Comparison) -> str:
    return "unknown" if pair.low is None or pair.high is None else f"{pair.low:+.4f} to {pair.high:+.4f}"


def _cost(verdicts: Mapping[str, Verdict], runs: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    yield "| experiment | runs it judges | runs trained for it | GPU seconds | dollars |"
    yield "| --- | --- | --- | --- | --- |"
    known: set[str] = set()
    for name, verdict in verdicts.items():
        new = [run for run in trained_for(verdict) if run not in known]
        known.update(new)
        if new:
            yield f"| {name} | {len(verdict.runs)} | {len(new)} | {_sum(runs, new, 'hours') * 3600:,.0f} | {_sum(runs, new, 'dollars'):.2f} |"
    everything = list(known)
    seconds, dollars = _sum(runs, everything, "hours") * 3600, _sum(runs, everything, "dollars")
    yield f"| all | | {len(known)} | {seconds:,.0f} | {dollars:.2f} |"
    devices = {re.sub(r"\s+", " ", runs[run]["device"]) for run in everything if run in runs}
    yield ""
    yield f"Seconds of the ledger (a run's start, steps, evaluations and checkpoint) on {', '.join(sorted(devices))}, at 3 dollars a GPU hour. Experiments that are not listed judge runs of others."


def _sum(runs: Mapping[str, Mapping[str, str]], names: list[str], column: str) -> float:
    return sum(float(runs[name][column] or 0) for name in names if name in runs)


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)
