"""The study's pictures, each as one SVG for light and one for dark pages, in the colours of the reports."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.study.kept import RESULTS, published_ladders
from benchmarks.study.page import DECIDES
from benchmarks.study.run import DEPTHS, LADDERS
from tasks.records.ladder import Ladder, Rung
from tasks.records.verdict import Comparison, Verdict
from tasks.reports import charts
from tasks.reports.charts import Interval

FIGURES = Path(__file__).with_name("figures")
STYLE = Path(charts.__file__).with_name("templates") / "style.css"
CONTROL = "random"
THRICE = "best tenth, three times"
BESIDE = 1.7
"""A measured point is drawn beside the predicted one, so that both intervals are seen."""


def palettes() -> dict[str, dict[str, str]]:
    """{theme: {CSS variable: colour}}, by the style sheet of the reports; what the dark one leaves out is as in the light one."""
    light, dark = re.findall(r":root\{(.*?)\}", STYLE.read_text(), re.DOTALL)[:2]
    colours = [dict(re.findall(r"(--\w+):(#\w+)", text)) for text in (light, dark)]
    return {"light": colours[0], "dark": colours[0] | colours[1]}


def themed(svg: str) -> dict[str, str]:
    """{theme: SVG}, a picture whose colours are variables with each theme's colours in their place."""
    return {
        theme: re.sub(r"var\((--\w+)\)", lambda found, colours=colours: colours[found[1]], svg)  # type: ignore[misc]
        for theme, colours in palettes().items()
    }


def against(pair: Comparison, control: str = CONTROL) -> Interval:
    """(other arm, its difference from the control, low, high): below 0 it is better than the control."""
    low, high = (
        pair.low if pair.low is not None else pair.difference,
        pair.high if pair.high is not None else pair.difference,
    )
    if pair.b == control:
        return pair.a, pair.difference, low, high
    return pair.b, -pair.difference, -high, -low


def rows(verdicts: Mapping[str, Verdict], names: Sequence[str]) -> list[Interval]:
    """Every arm of these experiments against the random third."""
    found: dict[str, Interval] = {}
    for name in names:
        for pair in verdicts[name].comparisons if name in verdicts else ():
            if CONTROL in (pair.a, pair.b):
                arm, difference, low, high = against(pair)
                found[arm] = (THRICE if arm == "tenth" else f"{arm} third", difference, low, high)
    return list(found.values())


def depths(verdicts: Mapping[str, Verdict]) -> list[Interval]:
    """The first question by what decides and by depth."""
    found = []
    for target, words in DECIDES.items():
        for ending, depth in DEPTHS.items():
            if verdict := verdicts.get(f"{target}{ending}"):
                found.append((f"{words}, {depth} layers", *against(verdict.comparisons[0])[1:]))
    return found


def climbed(ladder: Ladder, measured: Verdict | None) -> str:
    """The difference against compute: what was found at each depth, what that predicts, and what was measured at the target."""
    (forecast,), target = ladder.forecasts, ladder.target
    points = [(f"d{rung.depth}", rung.flops, *_ends(rung)) for rung in forecast.rungs]
    if measured:
        points.append(("measured", BESIDE * target.flops, *_ends(measured.comparisons[0])))
    predicted = (f"d{target.depth}", target.flops, forecast.difference, forecast.low, forecast.high)
    zero = f"{forecast.a} less {forecast.b}, bits per byte"
    return charts.ladder_svg(points, forecast.band, predicted, zero=zero)


def _ends(found: Rung | Comparison) -> tuple[float, float, float]:
    """A difference with its interval; where that is unknown, a point."""
    low = found.difference if found.low is None else found.low
    high = found.difference if found.high is None else found.high
    return found.difference, low, high


def deciles(verdict: Verdict) -> list[Interval]:
    """The first pair's difference on each tenth of the holdout by rating, with bands that hold for all at once."""
    found = []
    for part in verdict.comparisons[0].strata:
        if part.kind == "decile":
            low = part.difference if part.band_low is None else part.band_low
            high = part.difference if part.band_high is None else part.band_high
            found.append((part.label, part.difference, low, high))
    return found


def draw(verdicts: Mapping[str, Verdict], folder: Path = FIGURES, results: Path = RESULTS) -> list[Path]:
    """Write `verdict-*.svg` (each replicate of the first question), `deciles-*.svg` (its difference by rating of what is scored),
    `ratings-*.svg` and `handbook-*.svg` (every arm against random, on the pool and on the book), `depths-*.svg`, and a picture a ladder.
    """
    folder.mkdir(exist_ok=True)
    pictures = {}
    if first := verdicts.get("best"):
        by_label = {
            arm.label: list(zip(arm.seeds, arm.target_by_seed or arm.bpb_by_seed, strict=True)) for arm in first.arms
        }
        pictures["verdict"] = charts.replicates_svg(by_label, joined=first.comparisons[0].pairing.paired)
        pictures["deciles"] = charts.strata_svg(
            deciles(first), zero="best less random in bits per byte: left, best is better"
        )
    less = "bits per byte less the random third's: left is better"
    for picture, names in (("ratings", ("ratings", "junk")), ("handbook", ("handbook-ratings",))):
        if found := rows(verdicts, names):
            pictures[picture] = charts.strata_svg(found, zero=less)
    if found := depths(verdicts):
        pictures["depths"] = charts.strata_svg(found, zero="best less random in bits per byte: left, best is better")
    for name, ladder in published_ladders(results).items():
        pictures[name] = climbed(ladder, verdicts.get(LADDERS[name]))
    written = []
    for name, svg in pictures.items():
        for theme, text in themed(svg).items():
            written.append(folder / f"{name}-{theme}.svg")
            written[-1].write_text(text + "\n")
    return written
