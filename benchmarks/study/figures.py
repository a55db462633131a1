"""The study's pictures, each as one SVG for light and one for dark pages, in the colours of the reports."""

import re
from collections.abc import Mapping
from pathlib import Path

from tasks.records.verdict import Comparison, Verdict
from tasks.reports import charts
from tasks.reports.charts import Interval

FIGURES = Path(__file__).with_name("figures")
STYLE = Path(charts.__file__).with_name("templates") / "style.css"
CONTROL = "random"


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


def rows(verdicts: Mapping[str, Verdict]) -> list[Interval]:
    """Every arm against the random third: each rating's, the worst, and both on the handbook."""
    found: dict[str, Interval] = {}
    for name in ("ratings", "junk"):
        for pair in verdicts[name].comparisons if name in verdicts else ():
            if CONTROL in (pair.a, pair.b):
                arm, difference, low, high = against(pair)
                found[arm] = (f"{arm} third", difference, low, high)
    if "handbook" in verdicts:
        _, difference, low, high = against(verdicts["handbook"].comparisons[0])
        found["handbook"] = ("best, on the handbook", difference, low, high)
    return list(found.values())


def deciles(verdict: Verdict) -> list[Interval]:
    """The first pair's difference on each tenth of the holdout by rating, with bands that hold for all at once."""
    found = []
    for part in verdict.comparisons[0].strata:
        if part.kind == "decile":
            low = part.difference if part.band_low is None else part.band_low
            high = part.difference if part.band_high is None else part.band_high
            found.append((part.label, part.difference, low, high))
    return found


def draw(verdicts: Mapping[str, Verdict], folder: Path = FIGURES) -> list[Path]:
    """Write `verdict-*.svg` (each replicate of the first question), `deciles-*.svg` (its difference by rating of what is scored) and
    `ratings-*.svg` (every arm against random)."""
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
    if found := rows(verdicts):
        pictures["ratings"] = charts.strata_svg(found, zero="bits per byte less the random third's: left is better")
    written = []
    for name, svg in pictures.items():
        for theme, text in themed(svg).items():
            written.append(folder / f"{name}-{theme}.svg")
            written[-1].write_text(text + "\n")
    return written
