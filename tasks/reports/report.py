"""Reports: one HTML page for a run, one for a verdict, each readable with nothing but a browser."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.records.layout import REPORT, VERDICT, RunFolder, VerdictFolder
from tasks.reports import charts, parts
from tasks.reports.artifacts import byte_size, count, dollars, hours, probability, signed, when
from tasks.reports.evidence import Document, Run, Taken, lineage, only_in
from tasks.reports.page import (
    Html,
    card,
    code,
    details,
    element,
    escape,
    figure,
    grid,
    join,
    marked,
    page,
    section,
    table,
)
from tasks.store.artifact import Artifact, Work, fingerprint, write_atomic
from tasks.store.root import Root

METHOD = (
    "A difference is nats of the first arm minus nats of the second, summed over the documents both models were scored on, "
    "divided by the documents' bytes: every byte weighs the same, and below 0 the first arm is better.",
    "The holdout is a sample of the whole pool. An arm that leaves out the pool's worst documents is examined on them all the same, "
    "and at home on the better-rated half: look at both halves before saying which arm is better for what.",
    "The interval answers for two kinds of chance. Documents: whole blocks of the holdout are resampled (bootstrap-t). Seeds: "
    "the spread between runs that differ in their seed alone, pooled over arms, enters by Student's t with its few degrees of freedom.",
    "Intervals of deciles, lengths and sources are not adjusted for their number: one in twenty excludes 0 by chance. They say "
    "where to look, not what is true.",
    "Tokens saved are read off the better arm's own curve before its learning rate had fallen, so they are a lower bound.",
)


def run_report(root: Root, name: str) -> str:
    """The page of one run, finished or not. Raises InputError when there is no such run."""
    run = Run.find(root, name)
    known, spec, entry = run.facts, run.spec, run.entry
    runs = [(spec["arm"]["name"], run)]
    training = spec["training"]
    numbers = [
        ("bits per byte on the holdout", f"{known['bpb']:.4f}" if known.get("bpb") is not None else None),
        ("trained tokens", count(known.get("tokens"))),
        ("tokens per second", count(known.get("tokens_per_second"))),
        ("model FLOPs utilization", f"{100 * known['mfu']:.1f} %" if known.get("mfu") else None),
        ("peak GPU memory", byte_size(known.get("peak_memory_bytes"))),
        ("time, all attempts", hours(entry.get("hours"))),
        ("cost", dollars(entry.get("dollars"))),
    ]
    about = f"{parts.selection(spec['arm'])}; depth {training['depth']}, {training['engine']}, {training['precision']}"
    content = [
        element("h1", f"{spec['arm']['name']}, seed {spec['seed']}"),
        element("p", join([escape(f"{about}. Run "), code(name), f" {entry.get('state', '')}"], ""), class_="quiet"),
        card(element("b", "Stopped: "), entry["error"]) if entry.get("error") else "",
        parts.tiles(numbers),
        parts.curves(runs),
        parts.scores(runs, {runs[0][0]: known.get("bpb_by_decile") or []}),
        parts.speed_and_cost(runs),
        _attempts(entry),
        parts.generated(runs),
        section("Parameters", card(parts.parameters(spec))),
        parts.lineage_table(lineage(root, [run])),
    ]
    return page(f"Run {name}", *(part for part in content if part))


def verdict_report(root: Root, verdict: Mapping[str, Any]) -> str:
    """The page of a verdict made by `tasks.verdict.judge`, with what is at hand of its runs and arms."""
    runs = [(arm["label"], Run.find(root, name)) for arm in verdict["arms"] for name in arm["runs"]]
    series = parts.series_of(runs)
    held = verdict["holdout"]
    about = (
        f"{when(verdict['created'])}. Scored on {held['documents']:,} documents ({byte_size(held['bytes'])}) in {held['clusters']:,} "
        f"{held['clusters_are']}; trained on {count(verdict['tokens'])} tokens a run."
    )
    deciles = {
        arm["label"]: [stratum["bpb"] for stratum in arm["strata"] if stratum["kind"] == "decile"]
        for arm in verdict["arms"]
    }
    verdict_row = [
        "verdict",
        code(verdict["name"]),
        "",
        f"{len(runs)} runs",
        "",
        f"{when(verdict['created'])} by {verdict['code']}",
    ]
    content = [
        element("h1", f"Verdict: {verdict['name']}"),
        element("p", about, class_="quiet"),
        *(_comparison(pair, series, verdict) for pair in verdict["comparisons"]),
        _arms(verdict, dict(runs), series),
        parts.curves(runs),
        parts.scores(runs, deciles),
        _taken(dict(runs), verdict["comparisons"], series),
        parts.generated(runs),
        parts.speed_and_cost(runs),
        _matched(verdict, runs[0][1]),
        parts.lineage_table(
            lineage(root, [run for _, run in runs], verdict["outside"], verdict["core"]), [verdict_row]
        ),
        section("How to read this", card(*(element("p", line) for line in METHOD))),
    ]
    return page(f"Verdict {verdict['name']}", *(part for part in content if part))


def write_verdict(root: Root, verdict: Mapping[str, Any]) -> Artifact:
    """Keep a verdict as the artifact `verdicts/<name>-<fingerprint>`: verdict.json and report.html.

    The fingerprint is of what it judges, so that more seeds or other texts make another verdict beside this one.
    """
    runs = {run: root.find(RunFolder(run).result) for arm in verdict["arms"] for run in arm["runs"]}
    inputs = {run: manifest.fingerprint for run, manifest in runs.items()}
    beside = [name for run in runs for name in RunFolder(run).beside(verdict["outside"], verdict["core"])]
    inputs |= {name: root.find(name).fingerprint for name in beside}
    spec = {"arms": {arm["label"]: arm["runs"] for arm in verdict["arms"]}, "level": verdict["level"]}
    spec |= {"target": verdict["target"]}
    name = VerdictFolder(f"{verdict['name']}-{fingerprint(spec, inputs)}").name

    def make(work: Work) -> None:
        work.temporary(VERDICT).write_text(json.dumps(verdict, indent=1, allow_nan=False) + "\n")
        work.finish(VERDICT)
        work.temporary(REPORT).write_text(verdict_report(root, verdict))
        work.finish(REPORT)
        work.facts["sentences"] = [pair["sentence"] for pair in verdict["comparisons"]]

    return root.build(name, make, spec=spec, inputs=inputs)


def write_report(root: Root, name: str) -> Path:
    """The report of a run (written anew as `runs/<run>/report.html`) or of a verdict (as it was made), by its name.

    Raises InputError when there is neither.
    """
    if root.find(VerdictFolder(name).name) is not None:
        return root.file(VerdictFolder(name).name, REPORT)
    path = root.path(RunFolder(name).file(REPORT))
    try:
        text = run_report(root, name)
    except InputError as error:
        verdicts = VerdictFolder.all(root)
        raise InputError(f"{error} Verdicts there are: {', '.join(verdicts) or 'none'}.") from error
    write_atomic(path, text)
    root.upload_file(path)
    return path


def _comparison(pair: Mapping[str, Any], series: Mapping[str, int], verdict: Mapping[str, Any]) -> Html:
    """The sentence, its numbers, and where the difference is."""
    a, b, better = pair["a"], pair["b"], pair["better"]
    level = f"{100 * verdict['level_of_a_pair']:.3g} % interval"
    covers = "new documents and new seeds" if pair["covers_seeds"] else "new documents, not new seeds"
    numbers = [
        (f"bits per byte, {a} minus {b}", signed(pair["difference"])),
        (f"{level}, for {covers}", f"{signed(pair['low'])} to {signed(pair['high'])}"),
        ("p", probability(pair["p"])),
        ("seeds an arm", str(pair["seeds"])),
        ("error of documents / of seeds", f"{_error(pair, 'documents')} / {_error(pair, 'seeds')}"),
    ]
    side = f"bits per byte; left of 0 {a} is better, right of it {b}"
    shown = [row for row in pair["strata"] if row["low"] is not None]
    by_kind = {kind: [row for row in shown if row["kind"] == kind] for kind in ("decile", "length", "source")}
    by_kind["decile"] = [row for row in shown if row["kind"] in ("all", "half")] + by_kind["decile"]
    pictures = [
        figure(
            f"By {kind}" if kind != "decile" else "By score: all, halves, deciles (10: the best)", _strata(rows, side)
        )
        for kind, rows in by_kind.items()
        if len(rows) > 1  # a single row is all documents once more
    ]
    outside = [[row["label"], *_numbers(row)] for row in pair["outside"]]
    head = ["", "Documents", "Difference", "From", "To", "p"]
    every = [[row["label"], count(row["documents"]), *_numbers(row)] for row in pair["strata"]]
    color = f" s{series[better]}" if better else ""
    return join(
        [
            card(pair["sentence"], class_=f"verdict{color}"),
            parts.tiles(numbers),
            grid(*pictures),
            section("Texts from elsewhere", card(table(["", *head[2:]], outside, range(1, 5)))) if outside else "",
            _tasks(pair),
            details("These differences as a table", card(table(head, every, range(1, 6)))),
            _outlook(pair),
        ]
    )


def _tasks(pair: Mapping[str, Any]) -> Html:
    """Centered accuracies in questions and answers."""
    if not pair["tasks"]:
        return Html("")
    head = ["Task", pair["a"], pair["b"], "Difference", "From", "To", "p"]
    rows = [[row["label"], f"{row['a']:.4f}", f"{row['b']:.4f}", *_numbers(row)] for row in pair["tasks"]]
    note = "Centered accuracy: 0 is guessing, 1 is all right; above 0 the first arm is better. Intervals: new seeds, same questions."
    return section("CORE tasks", element("p", note, class_="quiet"), card(table(head, rows, range(1, 7))))


def _strata(rows: Sequence[Mapping[str, Any]], side: str) -> str:
    return charts.strata_svg([(row["label"], row["difference"], row["low"], row["high"]) for row in rows], zero=side)


def _numbers(row: Mapping[str, Any]) -> list[str]:
    return [*(signed(row[key]) for key in ("difference", "low", "high")), probability(row["p"])]


def _error(pair: Mapping[str, Any], part: str) -> str:
    return "unknown" if pair["errors"][part] is None else f"{pair['errors'][part]:.2g}"


def _outlook(pair: Mapping[str, Any]) -> Html:
    """What more seeds would show."""
    if not pair["detectable"]:
        return Html("")
    rows = [[str(plan["seeds"]), f"{plan['difference']:.2g}"] for plan in pair["detectable"]]
    head = ["Seeds an arm", "Smallest difference shown 4 times in 5"]
    return details("What more seeds would show", card(table(head, rows, [1])))


def _arms(verdict: Mapping[str, Any], runs: Mapping[str, Run], series: Mapping[str, int]) -> Html:
    rows = []
    for arm in verdict["arms"]:
        taken = Taken(runs[arm["label"]].root, arm["arm"])
        facts = taken.manifest.facts if taken else {}
        seeds = ", ".join(f"{seed}: {bpb:.4f}" for seed, bpb in zip(arm["seeds"], arm["bpb_by_seed"], strict=True))
        chosen = parts.selection(runs[arm["label"]].spec["arm"])
        name = marked(arm["label"], series[arm["label"]])
        rows.append(
            [name, chosen, count(facts.get("documents")), byte_size(facts.get("bytes")), f"{arm['bpb']:.4f}", seeds]
        )
    head = ["Arm", "Selection", "Documents", "Text", "Bits per byte", "By seed"]
    return section("Arms", card(table(head, rows, [2, 3, 4], stacked=True)))


def _taken(runs: Mapping[str, Run], pairs: Sequence[Mapping[str, Any]], series: Mapping[str, int]) -> Html:
    """Some documents that one arm took and the other did not."""
    arms = {label: Taken(run.root, run.arm) for label, run in runs.items()}
    blocks = []
    for pair in pairs:
        if not (arms[pair["a"]] and arms[pair["b"]]):
            continue
        columns = []
        for ours, theirs in ((pair["a"], pair["b"]), (pair["b"], pair["a"])):
            total, documents = only_in(arms[ours], arms[theirs])
            title = element("h3", join([marked(ours, series[ours]), f" took, {theirs} did not: {total:,}"], ""))
            columns.append(element("div", join([title, *map(_document, documents)])))
        blocks.append(element("div", join(columns), class_="pair"))
    note = element("p", "Spread over each arm's training order, cut after 700 characters.", class_="quiet")
    return section("What one arm took and the other did not", note, *blocks) if blocks else Html("")


def _document(document: Document) -> Html:
    place = f"score {document.score:.2f}, place {document.rank + 1:,}, {document.blob} row {document.row:,}"
    text = element("div", document.text, class_="text")
    return card(element("div", place, class_="quiet"), text, style="margin-bottom:12px")


def _attempts(entry: Mapping[str, Any]) -> Html:
    rows = []
    for i, attempt in enumerate(entry.get("attempts", ()), start=1):
        spent = hours((attempt["finished"] - attempt["started"]) / 3600) if attempt["finished"] else "still going"
        rows.append(
            [i, attempt["state"], attempt["host"], attempt["gpus"], spent, code(attempt["commit"] or attempt["code"])]
        )
    head = ["Attempt", "State", "Host", "GPUs", "Time", "Commit"]
    return section("Attempts", card(table(head, rows, stacked=True))) if rows else Html("")


def _matched(verdict: Mapping[str, Any], run: Run) -> Html:
    """What was equal, and what was not but was allowed."""
    allowed = verdict["matched"]["allowed"]
    training = run.spec["training"]
    shared = {
        "pool": f"pool {verdict['pool']} with its holdout and tokenizer",
        "tokens": f"{count(verdict['tokens'])} trained tokens",
        "training": f"engine {training['engine']}, depth {training['depth']}, {training['precision']}, schedule",
        "code": f"version {verdict['code']} of the code",
        "commit": "the code that trained, where it is known",
    }
    unequal = {path.split(".")[0] for path in allowed}
    equal = f"Equal between all runs: {'; '.join(text for path, text in shared.items() if path not in unequal)}."
    differs = [element("p", f"Allowed to differ: {path} ({text}).") for path, text in allowed.items()]
    return section("What the arms share", card(element("p", equal), *differs, parts.parameters(run.spec)))
