"""Reports: one HTML page for a run, one for a verdict, each readable with nothing but a browser.

The pages are Jinja2 templates beside this module. `page.html` holds the styles and a content policy that forbids scripts,
requests and frames. Every value is escaped, and `visible`, except the pictures that `charts` makes.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.errors import InputError
from tasks.escaping import visible
from tasks.records import caveats
from tasks.records.layout import REPORT, VERDICT, LadderFolder, RunFolder, VerdictFolder
from tasks.records.verdict import FEWEST_PAIRS, ArmScores, Comparison, Verdict, rough
from tasks.reports import artifacts, charts
from tasks.reports.evidence import Run, Taken, holdout_scores, lineage, only_in
from tasks.spec import Score
from tasks.store.artifact import Artifact, Work, contents, fingerprint, write_atomic
from tasks.store.root import Root

log = logging.getLogger(__name__)
DOCUMENTS_OF, ROWS_OF = "documents of a random arm", "rows of a budget"
HOW = {
    "init": "initial weights",
    "order": "order of a shuffled arm",
    "sample": f"{DOCUMENTS_OF}, {ROWS_OF}",
}
"""What a replicate redraws, in words."""
Labelled = Sequence[tuple[str, Run]]
"""(label of the arm, run): runs with equal labels are its seeds."""


def run_report(root: Root, name: str) -> str:
    """The page of one run, finished or not. Raises InputError when there is no such run."""
    run = Run.find(root, name)
    runs = [(run.spec["arm"]["name"], run)]
    deciles = {label: known.measured.bpb_by_decile for label, known in runs if known.measured.bpb_by_decile}
    return _page("run.html", runs, deciles, run=run, links=lineage(root, [run]))


def verdict_report(root: Root, verdict: Verdict) -> str:
    """The page of a verdict, with what is at hand of its runs and arms."""
    runs = [(arm.label, Run.find(root, name)) for arm in verdict.arms for name in arm.runs]
    taken = {arm.label: Taken(root, arm.arm) for arm in verdict.arms}
    return _page(
        "verdict.html",
        runs,
        {arm.label: [row.bpb for row in arm.strata if row.kind == "decile"] for arm in verdict.arms},
        verdict=verdict,
        findings=caveats.own(verdict.comparisons),
        shared_caveats=caveats.shared(verdict.comparisons),
        strata=[_strata(pair, verdict.strata_by) for pair in verdict.comparisons],
        replicates=[_replicates(verdict, pair) for pair in verdict.comparisons],
        redrawn={arm.label: _redrawn(arm, [run for label, run in runs if label == arm.label]) for arm in verdict.arms},
        taken=taken,
        alone=_alone(verdict, taken),
        shared=_shared(verdict, runs[0][1]),
        links=lineage(root, [run for _, run in runs], verdict.outside, verdict.core, verdict.questions),
    )


def write_verdict(root: Root, verdict: Verdict) -> Artifact:
    """Keep a verdict as the artifact `verdicts/<name>-<fingerprint>`: verdict.json and report.html.

    The fingerprint is of what it judges and of what it found, so that more seeds, other texts, runs that were trained again
    or another release make another verdict beside this one.
    """
    names = [RunFolder(run).result for run in verdict.runs]
    for run in verdict.runs:
        names += RunFolder(run).beside(verdict.outside, verdict.core, verdict.questions)
    judged = {name: root.manifest(name) for name in names}
    spec = {"arms": {arm.label: list(arm.runs) for arm in verdict.arms}, "level": verdict.level}
    spec |= {"target": verdict.target, "pairing": verdict.pairing}
    spec |= {"found": fingerprint(verdict.model_dump_json(exclude={"created", "code"}))}
    name = VerdictFolder(f"{verdict.name}-{fingerprint(spec, contents(judged))}").name

    def make(work: Work) -> None:
        verdict.write(work.temporary(VERDICT))
        work.finish(VERDICT)
        work.temporary(REPORT).write_text(verdict_report(root, verdict))
        work.finish(REPORT)
        work.facts["sentences"] = [pair.sentence for pair in verdict.comparisons]

    return root.build(name, make, spec=spec, inputs=judged)


def write_report(root: Root, name: str) -> Path:
    """The report of a run (written again as `runs/<run>/report.html`), or that of a verdict or a ladder as it was made, by name.

    Raises InputError when there is none of that name.
    """
    for made in (VerdictFolder(name).name, LadderFolder(name).name):
        if root.find(made) is not None:
            return root.file(made, REPORT)
    path = root.path(RunFolder(name).file(REPORT))
    try:
        text = run_report(root, name)
    except InputError as error:
        verdicts = VerdictFolder.all(root)
        raise InputError(f"{error} Verdicts there are: {', '.join(verdicts) or 'none'}.") from error
    write_atomic(path, text)
    root.upload_file(path)
    return path


def leave_report(root: Root, run: str) -> Path | None:
    """Write the report of a run that has ended. A failure is only logged, because the run itself ended well: then None."""
    try:
        return write_report(root, run)
    except Exception as error:
        log.warning("The report of %s was not written (%s: %s)", run, type(error).__name__, error)
        return None


def page(template: str, **content: object) -> str:
    """A page of one of the templates. Every value is escaped but the pictures of `charts`, which are `Markup`."""
    return _templates().get_template(template).render(**content)


@cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["missing"] = artifacts.MISSING
    made.globals["fewest_pairs"] = FEWEST_PAIRS
    made.globals["how"] = HOW
    for shared in (
        *("by_seed", "byte_size", "count", "decimal", "digits", "dollars", "hours"),
        *("percent", "probability", "selection", "signed", "when"),
    ):
        made.filters[shared] = getattr(artifacts, shared)
    made.filters["rough"] = rough
    return made


def _page(template: str, runs: Labelled, deciles: Mapping[str, Sequence[float | None]], **content: object) -> str:
    """A page with the parts that all reports have: pictures, and what the first run of each label wrote."""
    first: dict[str, Run] = {}
    for label, run in runs:
        first.setdefault(label, run)
    drawn = _drawn(runs)
    return page(
        template,
        runs=runs,
        first=first,
        drawn=drawn,
        series={label: i % charts.SERIES for i, label in enumerate(first)},
        pictures={"curves": _curves(runs), "scores": _scores(first, deciles, drawn), "speed": _speed(runs)},
        samples=_samples(first),
        **content,
    )


def _drawn(runs: Labelled) -> str:
    """Which draw is shown of the arms that have several, in a sentence for each; "" where none has."""
    arms: dict[str, list[str]] = {}
    for label, run in runs:
        arms.setdefault(label, []).append(run.arm)
    several = {label: drawn for label, drawn in arms.items() if len(set(drawn)) > 1}
    return "".join(
        f" Of {label}, {drawn[0]} is shown, the first of its {len(set(drawn))} draws."
        for label, drawn in several.items()
    )


def _curves(runs: Labelled) -> dict[str, str]:
    """{caption: picture}, as all functions below that make pictures."""
    labels, files = _files(runs)
    seeds = " Line: mean over seeds; band: lowest to highest." if len(set(labels)) < len(labels) else ""
    final = " Of the final models alone: a smaller eval_every gives curves." * charts.is_one_point(
        files, charts.HOLDOUT
    )
    return {
        f"Bits per byte on the holdout.{final or seeds}": charts.curve_svg(files, labels, charts.HOLDOUT),
        f"Training loss, nats per token, smoothed.{seeds}": charts.curve_svg(files, labels, charts.LOSS),
    }


def _scores(first: Mapping[str, Run], deciles: Mapping[str, Sequence[float | None]], drawn: str) -> dict[str, str]:
    """Bits per byte per score decile, and the scores of what arms took beside those of the holdout, of those ranked alike."""
    rated = {label: values for label, values in deciles.items() if any(value is not None for value in values)}
    known = {label: [float("nan") if v is None else v for v in values] for label, values in rated.items()}
    leading = next(iter(first.values()))
    alike = {label: run.score == leading.score and Taken(run.root, run.arm) for label, run in first.items()}
    shown = {label: took.scores if took else np.empty(0) for label, took in alike.items()}  # each keeps its color
    if any(map(len, shown.values())):
        shown["holdout (the pool)"] = holdout_scores(leading)
    by_decile = charts.decile_svg(known) if known else ""
    return {
        "Bits per byte of holdout documents, by decile of their score: lower is better.": by_decile,
        f"Scores of the documents that were taken, by the score of the first arm.{drawn}": charts.score_histogram_svg(
            shown
        ),
    }


def _speed(runs: Labelled) -> dict[str, str]:
    labels, files = _files(runs)
    return {
        "Tokens per second.": charts.curve_svg(files, labels, charts.THROUGHPUT),
        "Model FLOPs utilization, percent of the device's peak.": charts.curve_svg(files, labels, charts.MFU),
    }


def _files(runs: Labelled) -> tuple[list[str], list[Path]]:
    return [label for label, _ in runs], [run.metrics for _, run in runs]


def _replicates(verdict: Verdict, pair: Comparison) -> dict[str, str]:
    """Where the difference of a pair comes from: its replicates, what makes the interval wide, and the looks so far."""
    scored = {arm.label: arm for arm in verdict.arms if arm.label in (pair.a, pair.b) and arm.target_by_seed}
    points = {label: list(zip(arm.seeds, arm.target_by_seed, strict=True)) for label, arm in scored.items()}
    lines = ", joined where they are paired" if pair.pairing.paired else ""
    pictures: dict[str, str] = {}
    if points:
        pictures[f"Each replicate{lines}."] = charts.replicates_svg(points, joined=pair.pairing.paired)
    side = f"bits per byte; left of 0 {pair.a} is better, right of it {pair.b}"
    parts = {"documents alone": pair.errors.reach_documents, "replicates alone": pair.errors.reach_seeds}
    rows = [
        (label, pair.difference, pair.difference - reach, pair.difference + reach)
        for label, reach in parts.items()
        if reach is not None
    ]
    if rows and pair.low is not None and pair.high is not None:
        rows.append(("both: the interval", pair.difference, pair.low, pair.high))
        pictures["The interval by source of variance."] = charts.strata_svg(rows, zero=side)
    looks = [
        (each.look.replicates, (each.a, each.difference, each.look.low, each.look.high))
        for look in (verdict.registered.looks if verdict.registered else ())
        for each in look.pairs
        if (each.a, each.b) == (pair.a, pair.b) and each.look.low is not None and each.look.high is not None
    ]
    if len(looks) > 1:
        band = "" if pair.margin is None else f" Band: within {pair.margin:g}, equivalent."
        caption = f"Looks so far: the difference ({pair.a} minus {pair.b}) with the interval of each look.{band}"
        pictures[caption] = charts.looks_svg(looks, pair.margin, zero="Difference, bits per byte")
    return pictures


def _strata(pair: Comparison, score: Score | None) -> dict[str, str]:
    """Where the difference of a pair is: by score, by length, by source, by the columns that were asked for."""
    by = score if isinstance(score, str) else ", ".join(score or ())
    side = f"bits per byte; left of 0 {pair.a} is better, right of it {pair.b}"
    kinds = {
        f"By score{f' ({visible(by)})' if by else ''}: all, halves, deciles (10: the best)": ("all", "half", "decile"),
        "By length": ("length",),
        "By source": ("source",),
        "By near copies in arms": ("near",),
        "By which arm would rather take such documents": ("taken",),
    }
    rows_of = {caption: [row for row in pair.strata if row.kind in wanted] for caption, wanted in kinds.items()}
    for row in pair.strata:
        if row.column is not None:
            part = row.model_copy(update={"label": row.label.removeprefix(f"{row.column}: ")})
            rows_of.setdefault(f"By the column {visible(row.column)}", []).append(part)
    pictures: dict[str, str] = {}
    for caption, known in rows_of.items():
        rows = [
            (row.label + " *" * row.stands_out, row.difference, row.low, row.high)
            for row in known
            if row.low is not None and row.high is not None
        ]
        if len(rows) > 1:  # a single row is all documents once more
            pictures[caption] = charts.strata_svg(rows, zero=side)
    return pictures


def _samples(first: Mapping[str, Run]) -> list[dict[str, Any]]:
    """Beginnings of documents, each with what the models make of it: document, score, prompt, texts by label."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for label, run in first.items():
        for sample in run.samples:
            new = {key: sample.get(key) for key in ("document", "score", "prompt")} | {"texts": {}}
            found.setdefault((sample["document"], sample["prompt"]), new)["texts"][label] = sample["text"]
    return list(found.values())


def _alone(verdict: Verdict, taken: Mapping[str, Taken]) -> list[list[dict[str, Any]]]:
    """For each pair of arms and either side: how many documents only it took, and some of them."""
    pairs = [(pair.a, pair.b) for pair in verdict.comparisons if taken[pair.a] and taken[pair.b]]
    found = []
    for a, b in pairs:
        sides = []
        for ours, theirs in ((a, b), (b, a)):
            total, documents = only_in(taken[ours], taken[theirs])
            sides.append({"ours": ours, "theirs": theirs, "total": total, "documents": documents})
        found.append(sides)
    return found


def _redrawn(arm: ArmScores, runs: Sequence[Run]) -> str:
    """What differs by chance between the runs of an arm, in words: of `sample` the documents, the rows of a budget, or both."""
    rows = any(
        "sample" not in run.spec.get("held", ()) and run.result and run.result.facts.get("rows_left") for run in runs
    )
    sample = [DOCUMENTS_OF] * bool(arm.draws) + [ROWS_OF] * (rows or not arm.draws)
    return "; ".join(", ".join(sample) if draw == "sample" else HOW[draw] for draw in arm.redrawn or ())


def _shared(verdict: Verdict, run: Run) -> list[str]:
    """What is equal between all runs."""
    training = run.spec["training"]
    shared = {
        "pool": f"pool {verdict.pool} with its holdout and tokenizer",
        "tokens": f"{artifacts.count(verdict.tokens)} trained tokens",
        "training": f"engine {training['engine']}, depth {training['depth']}, {training['precision']}, schedule",
        "code": f"version {run.result.facts.get('code', verdict.code) if run.result else verdict.code} of the code that trained",
        "commit": "its commit, where versions do not tell",
    }
    unequal = {path.split(".")[0] for path in verdict.matched.allowed}
    return [text for path, text in shared.items() if path not in unequal]
