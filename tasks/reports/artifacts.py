"""What the Prefect UI shows of an experiment: the contents of its artifacts, as plain markdown and rows.

Whatever is not a number or a word of this module passes through `markdown`: names of files, columns, arms and devices are data.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.escaping import markdown
from tasks.records.cost import CostEstimate
from tasks.records.stopping import Look
from tasks.records.verdict import ArmScores, Difference, Verdict
from tasks.reports.charts import data_url, loss_curve_svg
from tasks.spec import Experiment

MISSING = "–"
PLAN = (
    ("pool_documents", "Documents in the pool", "count"),
    ("holdout_documents", "Set aside as holdout", "count"),
    ("population", "With the ratings that the arm asks for", "count"),
    ("unrated_documents", "Left out for lack of a rating", "count"),
    ("filtered_documents", "Left out by where and ids", "count"),
    ("documents", "Documents taken", "count"),
    ("cut_off_score", "Score at the cut-off", "number"),
    ("cut_off_documents", "Documents with that score", "count"),
    ("cut_off_taken", "Of them taken; ties are drawn by seed", "count"),
    ("tokens", "Tokens in them", "count"),
    ("text_bytes", "Text in them, estimated", "bytes"),
    ("rows", "Packed rows", "count"),
    ("steps", "Optimizer steps", "count"),
    ("trained_tokens", "Tokens trained on", "count"),
    ("tokens_per_parameter", "Tokens for each scaling parameter", "number"),
    ("trained_documents", "Documents trained on", "count"),
    ("text_share", "Part of the arm's text trained on", "percent"),
    ("epochs", "How often it is read", "count"),
    ("mean_score", "Mean score of what is trained on", "score"),
    ("arm_mean_score", "Mean score of the arm", "score"),
    ("files", "Blobs of the pool", "count"),
    ("bad_files_count", "Left out because they cannot be used", "count"),
    ("bytes_to_read", "To read from the blob store", "bytes"),
    ("disk_bytes", "Disk needed", "bytes"),
    ("disk_free", "Disk free", "bytes"),
)
PREPARED = (
    ("documents", "Documents", "count"),
    ("characters", "Characters", "count"),
    ("bytes", "Bytes of text", "bytes"),
    ("tokens", "Tokens", "count"),
    ("cropped_tokens", "Tokens cropped by packing", "count"),
    ("rows", "Packed rows", "count"),
    ("sequence_length", "Tokens of a row", "count"),
    ("tokens_per_epoch", "Trainable tokens (rows x length)", "count"),
    ("duplicates", "Exact duplicates left out", "count"),
    ("population", "Documents with the ratings that the arm asks for", "count"),
    ("unrated_documents", "Left out for lack of a rating", "count"),
    ("filtered_documents", "Left out by where and ids", "count"),
    ("cut_off_score", "Score at the cut-off", "number"),
    ("cut_off_documents", "Documents with that score", "count"),
    ("cut_off_taken", "Of them taken; ties are drawn by seed", "count"),
    ("bad_files_count", "Files left out because they cannot be used", "count"),
    ("holdout_texts_removed", "Left out because in the holdout", "count"),
    ("near_copies", "Near copies of holdout documents", "count"),
    ("leaked_documents", "Holdout documents with near copies", "count"),
    ("near_copies_removed", "Left out as near copies of the holdout", "count"),
    ("shared_documents", "In other sources too, estimated by the holdout", "count"),
    ("bytes_read", "Read from the blob store", "bytes"),
    ("requests", "Requests", "count"),
)


def survey_markdown(name: str, found: Mapping[str, Any]) -> str:
    """What a data set holds, and what a typical arm would read of it: the plain values of a survey and of its `arm`."""
    overview = {**{k: v for k, v in found.items() if isinstance(v, str | int | float)}, **found["arm"]}
    rows = [f"| {markdown(label)} | {markdown(value)} |" for label, value in overview.items()]
    return "\n".join([f"## {markdown(name)}", "", "| | |", "| --- | ---: |", *rows])


def plan_markdown(experiment: Experiment, plan: Mapping[str, Any], costs: Sequence[CostEstimate] = ()) -> str:
    """What a run will do and cost. `plan` may have the keys of `PLAN` and `score_quantiles`.

    `costs`: one where the tokens are known, else the least and the most; they say the steps where the plan does not.
    """
    arm, training = experiment.arm, experiment.training
    where = f"{arm.subset} in {experiment.pool.urls.get(arm.subset)}" if arm.subset else experiment.pool.address
    lines = [
        f"## Plan of {markdown(arm.name)}, seed {experiment.seed}",
        "",
        f"**{markdown(selection(arm.identity()))}** of {markdown(where)}; depth {training.depth}, {training.engine}, "
        f"{training.precision}, {training.gpus} GPU(s) or process(es).",
        "",
        *_facts(PLAN, {"steps": tuple(cost.steps for cost in costs) or None, **plan}),
    ]
    lines += [*_parts(plan), *_left_out(plan)]
    if quantiles := plan.get("score_quantiles"):
        shown = ", ".join(f"{markdown(at)}: {_number(value)}" for at, value in dict(quantiles).items())
        lines += ["", f"Score quantiles of what it takes: {shown}"]
    if costs:
        lines += ["", estimate_markdown(costs)]
    return "\n".join(lines) + "\n"


def prepared_markdown(name: str, facts: Mapping[str, Any]) -> str:
    """What the preparation of an arm counted: the facts of its text and packed manifests."""
    lines = [f"## {markdown(name)} is prepared", "", *_facts(PREPARED, facts), *_parts(facts), *_left_out(facts)]
    return "\n".join(lines) + "\n"


def estimate_markdown(costs: Sequence[CostEstimate], notes: Sequence[str] = ()) -> str:
    """One column per cost, then where each speed comes from."""
    lines = [
        f"| | {' | '.join(markdown(cost.label) or 'estimate' for cost in costs)} |",
        "| --- " + "| ---: " * len(costs) + "|",
    ]
    rows: dict[str, list[Any]] = {
        "runs": [cost.runs for cost in costs],
        "tokens a run": [count(cost.tokens) for cost in costs],
        "steps": [count(cost.steps) for cost in costs],
        "parameters": [short(cost.parameters) for cost in costs],
        "tokens/s": [count(cost.tokens_per_second) for cost in costs],
        "time a run": [hours(cost.hours) for cost in costs],
        "GPU time": [hours(cost.gpu_hours) for cost in costs],
        "cost": [dollars(cost.dollars) for cost in costs],
        "disk": [byte_size(cost.disk_bytes) for cost in costs],
        "egress": [f"{byte_size(cost.egress_bytes)}, up to {dollars(cost.egress_dollars)}" for cost in costs],
    }
    lines += [f"| {name} | {' | '.join(map(str, cells))} |" for name, cells in rows.items()]
    sources = dict.fromkeys(cost.source for cost in costs)
    lines += ["", *(f"Speed: {markdown(source)}." for source in sources)]
    return "\n".join([*lines, *(["", *map(markdown, notes)] if notes else [])]) + "\n"


def loss_curve_markdown(metrics: Sequence[Path], labels: Sequence[str], title: str) -> str:
    """The loss curve as an image inside markdown (the UI shows `data:` images, not inline SVG)."""
    return f"## {markdown(title)}\n\n![Bits per byte and training loss]({data_url(loss_curve_svg(metrics, labels))})\n"


def scores_table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row per run, all documents. `results`: {"run", "arm", "seed", and the facts of `runs/<run>/result`}."""
    rows = []
    for result in results:
        row = {key: result.get(key) for key in ("run", "arm", "seed")}
        row["bits per byte"] = rounded(result.get("bpb"))
        row["tokens"] = count(result.get("tokens"))
        row["tokens/s"] = count(result.get("tokens_per_second"))
        if (seconds := result.get("wall_seconds")) is not None:
            row["hours"] = round(seconds / 3600, 3)
        rows.append(row)
    return rows


def decile_rows(deciles: Sequence[float | None]) -> list[dict[str, Any]]:
    """Bits per byte of one run, one row a decile of the holdout's scores, the best first; nothing where documents have no scores."""
    return deciles_table([{"run": "bits per byte", "bpb_by_decile": deciles}])


def deciles_table(results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a decile of the holdout's scores, the best first, one column a run; nothing where documents have no scores."""
    by_run = {str(result["run"]): list(result.get("bpb_by_decile") or ()) for result in results}
    by_run = {run: values for run, values in by_run.items() if any(value is not None for value in values)}
    most = max(map(len, by_run.values()), default=0)
    names = {most: f"{most} (best scores)", 1: "1 (lowest scores)"}
    return [
        {"decile": names.get(decile, str(decile))}
        | {run: rounded(values[decile - 1]) for run, values in by_run.items()}
        for decile in range(most, 0, -1)
    ]


def verdict_markdown(verdict: Verdict, report: str | None = None, fetch: str | None = None) -> str:
    """The sentences of a verdict, the arms, and the pairs with their intervals.

    `report`: address of the HTML page; `fetch`: the command that brings it to another machine.
    """
    lines = [f"## Verdict of {markdown(verdict.name)}", ""]
    for finding, dot, more in (sentence.partition(". ") for sentence in verdict.sentences):
        lines.append(f"**{markdown(finding + dot.rstrip())}** {markdown(more)}".rstrip() + "\n")
    lines += ["| arm | bits per byte | by seed | documents read | of its text | mean score | of the arm |"]
    lines += ["| --- | ---: | --- | ---: | ---: | ---: | ---: |"]
    for arm in verdict.arms:
        read = f"{count(arm.trained_documents)} | {percent(arm.text_share)}"
        scores = f"{decimal(arm.mean_score, 2)} | {decimal(arm.arm_mean_score, 2)}"
        lines.append(f"| {markdown(arm.label)} | {arm.bpb:.4f} | {by_seed(arm)} | {read} | {scores} |")
    lines += ["", "| difference | bits per byte | from | to | p |", "| --- | ---: | ---: | ---: | ---: |"]
    for pair in verdict.comparisons:
        name = f"{markdown(pair.a)} − {markdown(pair.b)}"
        accuracy = "centered accuracy (above 0: the first is better), "
        rows: list[tuple[str, Difference]] = [(name, pair)]
        rows += [(f"{name}: without near copies in any arm", pair.clean)] if pair.clean else []
        rows += [(f"{name}: {markdown(row.label)}", row) for row in pair.outside]
        for asked in pair.questions:
            rows.append((f"{name}: right answers to {markdown(asked.label)}", asked))
            if asked.accuracy is not None:
                better = "accuracy, 0 to 1 (above 0: the first is better), "
                rows.append((f"{name}: {better}{markdown(asked.label)}", asked.accuracy))
        rows += [(f"{name}: {accuracy}{markdown(row.label)}", row) for row in pair.tasks[:1]]
        for title, row in rows:
            numbers = " | ".join(signed(value, digits(row)) for value in (row.difference, row.low, row.high))
            lines.append(f"| {title} | {numbers} | {probability(row.p)} |")
    held = verdict.holdout
    over = f"{held.documents:,} documents in {held.clusters:,} {held.clusters_are}"
    lines += ["", "p: how often arms that are equal would seem to differ by as much."]
    lines += ["", f"Below 0: the first arm is better. {100 * verdict.level:g} % intervals over {over}."]
    if verdict.near:
        lines += ["", "| arm | held out | documents | with near copies | copies in the arm | left out of it |"]
        lines += ["| --- | --- | ---: | ---: | ---: | ---: |"]
    for leak in verdict.near:
        numbers = " | ".join(count(value) for value in (leak.documents, leak.leaked, leak.copies, leak.removed))
        lines.append(f"| {markdown(leak.label)} | {markdown(leak.what)} | {numbers} |")
    if report:
        lines += ["", f"Report: {markdown(report)}"]
    if fetch:
        lines += ["", f"On another machine: {markdown(fetch)}"]
    return "\n".join(lines) + "\n"


def selection(arm: Mapping[str, Any]) -> str:
    """An arm's selection, order and epochs in words. `arm`: its identity, of this version or of an earlier one."""
    parts = arm.get("parts") or ()
    if arm.get("tokens") or arm.get("documents"):
        size = f" {arm['tokens']:,} tokens" if arm.get("tokens") else f" {arm['documents']:,} documents"
    elif arm.get("min_score") is not None:
        size = f" from a score of {arm['min_score']:g} on"
    elif arm["select"] in ("all", "subset") and not parts:
        size = ""
    else:
        size = f" {100 * arm['share']:g} %{' of the tokens' if arm.get('share_of') == 'tokens' else ''}"
    taken = " and ".join(f"{part['weight']:g} {_select(part)}" for part in parts)
    what = f"mixed{size}{_source(arm)} ({taken})" if parts else _select(arm, size)
    often = f", {arm['epochs']} times" if arm.get("epochs", 1) > 1 else ""
    only = f", where {arm['where']}" if arm.get("where") else ", on a list" if arm.get("ids") else ""
    return f"{what}{only}, {arm['order']}{often}"


def _select(arm: Mapping[str, Any], size: str = "") -> str:
    heat = f" at temperature {arm['temperature']:g}" if arm["select"] == "temperature" else ""
    return f"{arm['select']}{size}{_source(arm)}{heat}"


def _source(arm: Mapping[str, Any]) -> str:
    return f" of {arm['subset']}" if arm.get("subset") else ""


def by_seed(arm: ArmScores) -> str:
    """1: 1.2345, 2: 1.2346."""
    return ", ".join(f"{seed}: {bpb:.4f}" for seed, bpb in zip(arm.seeds, arm.bpb_by_seed, strict=True))


def count(value: float | None) -> str:
    """12,345, or a dash for what is not known."""
    return MISSING if value is None else f"{value:,.0f}"


def short(value: float | None) -> str:
    """897 M, 5.0 B."""
    if value is None:
        return MISSING
    for limit, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g} {unit}"
    return f"{value:.0f}"


def byte_size(value: float | None) -> str:
    """1.46 GB (powers of 1,000, as clouds and disks count)."""
    if value is None:
        return MISSING
    amount, _, unit = short(value).partition(" ")
    return f"{amount}\u202f{'G' if unit == 'B' else unit}B"


def hours(value: float | None) -> str:
    """Hours with a sensible unit: 45 s, 12 min, 3.4 h."""
    if value is None:
        return MISSING
    seconds = value * 3600
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{value:,.1f} h"


def dollars(value: float | None) -> str:
    """$12.34, or a dash for what is not known."""
    return MISSING if value is None else f"${value:,.2f}"


def when(moment: str) -> str:
    """An ISO time as 2026-01-31 12:34 UTC."""
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")


def decimal(value: float | None, digits: int = 4) -> str:
    """1.2346, or a dash for what is not known."""
    return MISSING if value is None else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share as 41.5 %, or a dash for what is not known."""
    return MISSING if value is None else f"{100 * value:.1f} %"


def digits(row: Difference | Look) -> int:
    """Decimals for the numbers of a difference: four, or as many as give its interval's half width two digits, up to eight."""
    width = (row.high - row.low) / 2 if row.low is not None and row.high is not None else 0.0
    return min(8, max(4, 1 - math.floor(math.log10(width)))) if 0 < width < math.inf else 4


def signed(value: float | None, digits: int = 4) -> str:
    """+0.0123 or −0.0123; never −0.0000."""
    return MISSING if value is None else f"{value:+z.{digits}f}".replace("-", "−")


def probability(p: float | None) -> str:
    """0.034, or < 0.001."""
    return MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def _facts(names: Sequence[tuple[str, str, str]], facts: Mapping[str, Any]) -> list[str]:
    show: dict[str, Callable[[Any], str]] = {
        "count": count,
        "bytes": byte_size,
        "percent": percent,
        "number": _number,
        "score": lambda value: decimal(value, 2),
    }

    def shown(kind: str, value: Any) -> str:
        """A number, or a range as "1 to 2"."""
        return " to ".join(show[kind](number) for number in (value if isinstance(value, tuple) else (value,)))

    rows = [f"| {title} | {shown(kind, facts[key])} |" for key, title, kind in names if facts.get(key) is not None]
    return ["| | |", "| --- | ---: |", *rows]


def _parts(facts: Mapping[str, Any]) -> list[str]:
    """What each part of a mixed arm added, as a list after a table; nothing of other arms."""
    lines = [
        f"- {markdown(part['select'] + _source(part))}, {100 * part['weight']:.3g} %: {count(part['documents'])} documents, and "
        f"{count(part['again'])} more that an earlier part has"
        for part in facts.get("parts") or ()
    ]
    return ["", "Parts:", "", *lines] if lines else []


def _left_out(facts: Mapping[str, Any]) -> list[str]:
    """The files that were left out, as a list after a table; nothing if there are none."""
    named = facts.get("bad_files") or {}
    if not named:
        return []
    more = facts["bad_files_count"] - len(named)
    lines = [f"- {markdown(name)} {markdown(reason)}" for name, reason in named.items()]
    return ["", "Files left out:", "", *lines, *([f"- and {more:,} more"] if more > 0 else [])]


def _number(value: float) -> str:
    return f"{value:.4g}"


def rounded(value: float | None) -> float | None:
    """To the four digits that a table shows."""
    return None if value is None else round(value, 4)
