"""Sections that the report of a run and that of a verdict share: curves, speed and cost, generated text, lineage."""

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.reports import charts
from tasks.reports.artifacts import MISSING, byte_size, count, dollars, hours, when
from tasks.reports.evidence import Link, Run, Taken, holdout_scores
from tasks.reports.page import Html, code, details, element, escape, facts, figure, grid, join, marked, section, table

Labelled = Sequence[tuple[str, Run]]
"""(label of the arm, run): runs with equal labels are its seeds."""


def series_of(runs: Labelled) -> dict[str, int]:
    """Colour number of each label, in order of appearance."""
    return {label: i % charts.SERIES for i, label in enumerate(dict.fromkeys(label for label, _ in runs))}


def curves(runs: Labelled) -> Html:
    """Bits per byte and training loss over trained tokens."""
    files, labels = [run.metrics for _, run in runs], [label for label, _ in runs]
    seeds = " Line: mean over seeds; band: lowest to highest." if len(set(labels)) < len(labels) else ""
    return section(
        "Learning curves",
        grid(
            figure(f"Bits per byte on the holdout.{seeds}", charts.holdout_curve_svg(files, labels)),
            figure(f"Training loss, nats per token, smoothed.{seeds}", charts.train_curve_svg(files, labels)),
        ),
    )


def scores(runs: Labelled, deciles: Mapping[str, Sequence[float | None]]) -> Html:
    """Bits per byte per score decile, and the scores of what each arm took beside those of the holdout."""
    known = {label: [float("nan") if v is None else v for v in values] for label, values in deciles.items() if values}
    taken = {label: Taken(run.root, run.arm) for label, run in dict(runs).items()}
    shown = {label: took.scores for label, took in taken.items() if took}
    if shown:
        shown["holdout (the pool)"] = holdout_scores(runs[0][1].root, runs[0][1].pool)
    return section(
        "Scores",
        grid(
            figure(
                "Bits per byte of holdout documents, by decile of their score: lower is better.",
                charts.decile_svg(known) if known else "",
            ),
            figure("Composite scores of the documents that were taken.", charts.score_histogram_svg(shown)),
        ),
    )


def speed_and_cost(runs: Labelled) -> Html:
    """Throughput, MFU, and a row a run with hours, dollars and state."""
    series = series_of(runs)
    head = [
        "Run",
        "Seed",
        "State",
        "Device",
        "Trained tokens",
        "Steps",
        "Bits per byte",
        "Tokens/s",
        "MFU",
        "Hours",
        "Cost",
    ]
    rows = []
    for label, run in runs:
        known, entry = run.facts, run.entry
        mfu = f"{100 * known['mfu']:.1f} %" if known.get("mfu") else MISSING
        bpb = f"{known['bpb']:.4f}" if known.get("bpb") is not None else MISSING
        spent = hours(entry["hours"] if entry else _hours(known))
        price = dollars(entry["dollars"] if entry else None)
        state = entry.get("state", "completed" if run.result is not None else MISSING)
        name = join([marked(label, series[label]), element("div", code(run.name), class_="quiet")], "")
        device = f"{known.get('gpus', 1)} x {known['device']}" if known.get("device") else MISSING
        steps = known.get("steps", known.get("step"))
        rows.append([name, run.spec["seed"], state, device, count(known.get("tokens")), count(steps), bpb])
        rows[-1] += [count(known.get("tokens_per_second")), mfu, spent, price]
    files, labels = [run.metrics for _, run in runs], [label for label, _ in runs]
    total = [run.entry["dollars"] for _, run in runs if run.entry]
    return section(
        "Speed and cost",
        grid(
            figure("Tokens per second.", charts.throughput_svg(files, labels)),
            figure("Model FLOPs utilization, percent of the device's peak.", charts.mfu_svg(files, labels)),
        ),
        element(
            "div", table(head, rows, [1, *range(4, len(head))], stacked=True), class_="card", style="margin-top:16px"
        ),
        element("p", f"All runs together: {dollars(sum(total))}, by the ledger's hours and price.", class_="quiet")
        if len(total) > 1
        else "",
    )


def generated(runs: Labelled) -> Html:
    """What the models write after the same beginnings, side by side: one run a label."""
    series = series_of(runs)
    first: dict[str, Run] = {}
    for label, run in runs:
        first.setdefault(label, run)
    by_prompt: dict[tuple[int, str], list[tuple[str, dict[str, Any]]]] = {}
    for label, run in first.items():
        for sample in run.samples:
            by_prompt.setdefault((sample["document"], sample["prompt"]), []).append((label, sample))
    blocks = []
    for (document, prompt), written in by_prompt.items():
        score = written[0][1].get("score")
        title = f"Holdout document {document}" + (f", score {score:.2f}" if score is not None else "")
        texts = [
            element(
                "div",
                join(
                    [
                        marked(label, series[label]),
                        element(
                            "div",
                            join([element("span", prompt, class_="prompt"), escape(s["text"])], ""),
                            class_="text",
                        ),
                    ]
                ),
                class_="card",
            )
            for label, s in written
        ]
        blocks.append(join([element("h3", title, style="margin-top:16px"), element("div", join(texts), class_="pair")]))
    note = element("p", "Greedy continuations of beginnings of holdout documents (grey).", class_="quiet")
    return section("What the models write", note, *blocks) if blocks else Html("")


def lineage_table(links: Sequence[Link], last: Sequence[Sequence[Any]] = ()) -> Html:
    """From the blobs to the end: each artifact with its fingerprint and those it was made from."""
    by_fingerprint = {link.manifest.fingerprint: link.name for link in links}
    rows = []
    if sources := dict.fromkeys(_source(link) for link in links if link.name.endswith("/index")):
        rows += [["blobs", code(source), "", "", "", ""] for source in sources]
    for link in links:
        manifest = link.manifest
        made_from = []
        for role, given in manifest.inputs.items():
            name = by_fingerprint.get(given)
            made_from.append(join([element("span", role, class_="quiet"), " ", code(name or given)], ""))
        size = byte_size(sum(record.bytes for record in manifest.files))
        fields = [code(link.name), code(manifest.fingerprint), join(made_from, "<br>" if made_from else "")]
        rows.append([_kind(link.name), *fields, size, f"{when(manifest.created)} by {manifest.code}"])
    head = ["", "Artifact", "Fingerprint", "Made from", "Size", "Made"]
    return section(
        "Lineage",
        element(
            "p", "Equal fingerprints mean equal content: parameters, inputs and blob ETags decide them.", class_="quiet"
        ),
        element("div", table(head, [*rows, *last], [4], stacked=True), class_="card"),
    )


def parameters(spec: Mapping[str, Any]) -> Html:
    """All parameters that decide the content of a run."""
    rows = []
    for group in ("pool", "arm", "training"):
        rows += [[group, name, code(value)] for name, value in spec[group].items()]
    return details("All parameters", table(["", "Parameter", "Value"], [*rows, ["", "seed", code(spec["seed"])]]))


def tiles(pairs: Sequence[tuple[str, str | None]]) -> Html:
    """Large numbers; those that are not known are left out."""
    return facts((name, value) for name, value in pairs if value not in (None, MISSING))


def selection(arm: Mapping[str, Any]) -> str:
    """An arm's selection in words."""
    extent = "" if arm["select"] == "all" else f" {100 * arm['share']:g} %"
    if arm.get("tokens"):
        extent = f" {arm['tokens']:,} tokens"
    heat = f" at temperature {arm['temperature']:g}" if arm["select"] == "temperature" else ""
    return f"{arm['select']}{extent}{heat}, {arm['order']}"


def _hours(known: Mapping[str, Any]) -> float | None:
    return known["wall_seconds"] / 3600 if known.get("wall_seconds") else None


def _source(link: Link) -> str:
    source = str(link.manifest.spec.get("source", ""))
    return source or "unknown source"


def _kind(name: str) -> str:
    return {"pools": "pool", "arms": "arm", "runs": "run"}.get(name.split("/")[0], "")
