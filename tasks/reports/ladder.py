"""What a ladder found, as an artifact with a page, and as markdown for the Prefect UI."""

from collections.abc import Sequence

from tasks.escaping import markdown
from tasks.records import caveats
from tasks.records.ladder import Forecast, Ladder, LadderCost
from tasks.records.layout import LADDER, REPORT, LadderFolder
from tasks.reports.artifacts import dollars, hours, signed
from tasks.reports.charts import Theme, data_url, ladder_svg
from tasks.reports.report import page
from tasks.store.artifact import Artifact, Work, contents, fingerprint
from tasks.store.root import Root


def write_ladder(root: Root, ladder: Ladder) -> Artifact:
    """Keep a ladder as the artifact `ladders/<name>-<fingerprint>`: ladder.json and report.html. The fingerprint is of what it found."""
    judged = {scale.verdict: root.manifest(scale.verdict) for scale in ladder.scales if scale.verdict}
    found = fingerprint(ladder.model_dump_json(exclude={"created", "code", "cost"}), contents(judged))

    def make(work: Work) -> None:
        ladder.write(work.temporary(LADDER))
        work.finish(LADDER)
        work.temporary(REPORT).write_text(ladder_report(ladder))
        work.finish(REPORT)
        work.facts["sentences"] = ladder.sentences

    spec = {"scales": [scale.verdict for scale in ladder.scales], "to": ladder.target.depth, "found": found}
    return root.build(LadderFolder(f"{ladder.name}-{found}").name, make, spec=spec, inputs=judged)


def ladder_report(ladder: Ladder) -> str:
    """The page of a ladder, readable with nothing but a browser."""
    return page(
        "ladder.html",
        ladder=ladder,
        findings=caveats.own(ladder.forecasts),
        shared_caveats=caveats.shared(ladder.forecasts),
        pictures=[picture(ladder, each, "page") for each in ladder.forecasts],
        spent=spent(ladder),
    )


def ladder_markdown(ladder: Ladder, report: str | None = None) -> str:
    """The sentences, a picture and a table a pair. `report`: address of the HTML page."""
    lines = [f"## Ladder of {markdown(ladder.name)}", ""]
    lines += [f"{markdown(f'Of {pairs}: {said}')}\n" for pairs, said in caveats.shared(ladder.forecasts).items()]
    for each, said in zip(ladder.forecasts, caveats.own(ladder.forecasts), strict=True):
        lines += [f"**{markdown(said)}**", ""]
        lines += [f"![Difference against compute]({data_url(picture(ladder, each, 'neutral'))})", ""]
        lines += ["| depth | FLOPs of a run | difference | from | to |", "| --- | ---: | ---: | ---: | ---: |"]
        lines += [
            f"| d{rung.depth} | {rung.flops:.2g} | {signed(rung.difference)} | {signed(rung.low)} | {signed(rung.high)} |"
            for rung in each.rungs
        ]
        ends = f"{signed(each.low)} | {signed(each.high)}"
        lines.append(
            f"| d{ladder.target.depth}, predicted | {ladder.target.flops:.2g} | {signed(each.difference)} | {ends} |"
        )
        lines += ["", f"{markdown(each.a)} minus {markdown(each.b)}, bits per byte; below 0 the first is better.", ""]
    lines += [markdown(ladder.backtest.sentence), "", markdown(spent(ladder))]
    if report:
        lines += ["", f"Report: {markdown(report)}"]
    return "\n".join(lines) + "\n"


def picture(ladder: Ladder, found: Forecast, theme: Theme) -> str:
    """Difference against compute."""
    rungs = [
        (f"d{rung.depth}", rung.flops, rung.difference, rung.low, rung.high)
        for rung in found.rungs
        if rung.low is not None and rung.high is not None
    ]
    target = (f"d{ladder.target.depth}", ladder.target.flops, found.difference, found.low, found.high)
    return ladder_svg(rungs, found.band, target, zero=f"{found.a} minus {found.b}, bits per byte", theme=theme)


def spent(ladder: Ladder) -> str:
    """What the rungs cost against the direct comparison, in a sentence."""
    return spent_before([scale.depth for scale in ladder.scales], ladder.target.depth, ladder.cost)


def spent_before(depths: Sequence[int], to: int, cost: LadderCost) -> str:
    """The same, before anything is."""
    if cost.hours is None or cost.target_hours is None:
        amounts = f"{cost.flops:.2g} FLOPs against {cost.target_flops:.2g}; no speed on this device is known"
    else:
        direct = f"{hours(cost.target_hours)}, {dollars(cost.target_dollars)}"
        amounts = f"{hours(cost.hours)}, {dollars(cost.dollars)} against {direct}"
    listed = ", ".join(f"d{depth}" for depth in depths)
    return f"The ladder of {listed} costs {100 * cost.share:.3g} % of a comparison at d{to} with as many replicates: {amounts}."
