"""Pictures of runs and verdicts as SVG text, by matplotlib.

Text stays text. There are two colour themes: "page" leaves the colours to CSS variables (`--ink`, `--grid`, `--s0` ...), so
that pictures in a report follow light and dark mode; "neutral" uses mid tones that are legible on both, for an `<img>` on a page
whose theme is not ours (the Prefect UI).
"""

from __future__ import annotations

import base64
import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from markupsafe import Markup, escape

from tasks.escaping import plain
from tasks.records.metrics import MetricsLine, read_metrics

if TYPE_CHECKING:  # loaded only to draw: every flow's process imports this module, and few of them draw
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Theme = Literal["neutral", "page"]
SERIES = 6
POINTS = 240  # of one curve: more cannot be told apart at this size
PIXELS = 72  # an SVG point of matplotlib is a CSS pixel at this resolution
INK, GRID, QUIET = "#010101", "#020202", "#030303"  # stand-ins that `_themed` replaces
COLORS = [f"#0400{i:02x}" for i in range(SERIES)]
NEUTRAL = {INK: "#7d8590", GRID: "#7d859055", QUIET: "#8b949e"}
NEUTRAL |= dict(zip(COLORS, ("#2f81f7", "#d9822b", "#2da44e", "#bf5af2", "#e5534b", "#1b9e9e"), strict=True))
PAGE = {INK: "var(--ink)", GRID: "var(--grid)", QUIET: "var(--quiet)"}
PAGE |= {color: f"var(--s{i})" for i, color in enumerate(COLORS)}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a source named "$x_" is a name, not a formula
    "font.size": 10,
    "text.color": INK,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}
_drawing = Lock()  # matplotlib's settings are one per process

Interval = tuple[str, float, float, float]
"""(label, estimate, low, high)"""


@dataclass(frozen=True)
class Curve:
    """What is drawn of a run: a key of its metrics lines of one kind, over trained tokens."""

    title: str
    kind: Literal["train", "eval"]
    key: str
    smooth: bool = False
    scale: float = 1
    from_zero: bool = False
    thousands: bool = False
    """Whether 5000 is written 5k."""
    optional: bool = False
    """Whether it is left out when no run has measured it."""


HOLDOUT = Curve("Bits per byte on the holdout", "eval", "bpb")
LOSS = Curve("Training loss in nats per token", "train", "loss", smooth=True)
THROUGHPUT = Curve("Tokens per second", "train", "tokens_per_second", from_zero=True, thousands=True)
MFU = Curve("Model FLOPs utilization in percent", "train", "mfu", scale=100, from_zero=True, optional=True)


def loss_curve_svg(metrics: Sequence[Path], labels: Sequence[str]) -> str:
    """Bits per byte on the holdout and training loss over trained tokens, one colour a label.

    Files with equal labels are seeds of one arm: their mean is drawn, with the range from lowest to highest behind it.
    """
    runs = _by_label(metrics, labels)

    def draw(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
        _curves(above, runs, HOLDOUT)
        _curves(below, runs, LOSS)
        above.set_title("Bits per byte on the holdout")
        below.set_title("Training loss, nats per token (smoothed)")
        _tokens_axis(below)
        _legend(above)

    return _render(draw, 560, 420, "Holdout bits per byte and training loss over trained tokens", "neutral")


def is_one_point(metrics: Sequence[Path], curve: Curve) -> bool:
    """Whether no run was measured more than once, so that there is nothing to connect."""
    return all(len(_points(read_metrics(path), curve)[0]) < 2 for path in metrics)


def curve_svg(metrics: Sequence[Path], labels: Sequence[str], curve: Curve) -> str:
    """One quantity over trained tokens; equal labels are seeds of one arm. "" when it is optional and nothing is known."""
    runs = _by_label(metrics, labels)
    if curve.optional and not any(line.get(curve.key) for seeds in runs.values() for run in seeds for line in run):
        return ""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        _curves(axes, runs, curve)
        if curve.from_zero:
            axes.set_ylim(bottom=0)
        if curve.thousands:
            _thousands(axes.yaxis)
        _tokens_axis(axes)
        _legend(axes)

    return _render(draw, 380, 250, f"{curve.title} over trained tokens")


def decile_svg(by_label: Mapping[str, Sequence[float]]) -> str:
    """Bits per byte per score decile of the holdout (10 values a label, the lowest scores first)."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for color, (label, values) in zip(COLORS, by_label.items(), strict=False):
            axes.plot(range(1, len(values) + 1), values, "o-", color=color, label=_clean(label), markersize=4)
        axes.set_xlabel("Score decile of the holdout (10 = best rated)")
        axes.set_xticks(range(1, 1 + max(map(len, by_label.values()), default=0)))
        _legend(axes)

    return _render(draw, 380, 250, "Bits per byte per score decile of the holdout")


def score_histogram_svg(by_label: Mapping[str, np.ndarray]) -> str:
    """Distribution of composite scores: of what each arm took, and of whatever else is given (the holdout). An arm without any keeps its color."""
    scores = {label: values[np.isfinite(values)] for label, values in by_label.items()}
    colors = {label: COLORS[at % SERIES] for at, label in enumerate(scores)}
    scores = {label: values for label, values in scores.items() if len(values)}
    if not scores:
        return ""
    low, high = min(v.min() for v in scores.values()), max(v.max() for v in scores.values())
    edges = np.linspace(low, high if high > low else low + 1, 41)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for label, values in scores.items():
            color = colors[label]
            share = 100 * np.histogram(values, edges)[0] / len(values)
            axes.stairs(share, edges, color=color, label=_clean(label), linewidth=1.6)
            axes.stairs(share, edges, color=color, fill=True, alpha=0.12)
        axes.set_xlabel("Composite score")
        axes.set_ylabel("% of documents")
        _legend(axes)

    return _render(draw, 380, 250, "Distribution of composite scores")


def strata_svg(rows: Sequence[Interval], *, zero: str) -> str:
    """Differences with their intervals, one row each, against the line of no difference; `zero` says which side is whose.

    Intervals many times as wide as the others, from few documents or runs, are cut at the edge.
    """
    ends = [max(abs(low), abs(high)) for _, _, low, high in rows]
    edge = max([3 * float(np.median(ends)), *(1.1 * abs(estimate) for _, estimate, _, _ in rows)])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = np.arange(len(rows))[::-1]
        for place, (_, estimate, low, high) in zip(places, rows, strict=True):
            color = COLORS[0] if high < 0 else COLORS[1] if low > 0 else QUIET
            axes.plot([low, high], [place, place], color=color, linewidth=2)
            axes.plot([estimate], [place], "o", color=color, markersize=5)
        axes.axvline(0, color=INK, linewidth=1)
        axes.set_yticks(places, [_clean(label, 28) for label, *_ in rows])
        axes.set_ylim(-0.7, len(rows) - 0.3)
        axes.grid(visible=False, axis="y")
        if max(ends) > 1.5 * edge:
            axes.set_xlim(-edge, edge)
        axes.locator_params("x", nbins=5)
        figure.supxlabel(_clean(zero, 80), fontsize="medium", color=INK)  # under the labels too: it is long

    return _render(draw, 380, 80 + 20 * len(rows), f"Differences with intervals: {_clean(zero, 80)}")


def replicates_svg(by_label: Mapping[str, Sequence[tuple[int, float]]], *, joined: bool) -> str:
    """Each replicate as a point (its seed, its bits per byte), a row a label, with the mean; `joined`: a line joins equal seeds."""

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        places = dict(zip(by_label, range(len(by_label))[::-1], strict=True))
        for seed in sorted({seed for points in by_label.values() for seed, _ in points}) if joined else ():
            line = [(value, places[label]) for label, points in by_label.items() for s, value in points if s == seed]
            axes.plot(*zip(*line, strict=True), color=GRID, linewidth=1, zorder=1)
        for i, (label, points) in enumerate(by_label.items()):
            values, color = [value for _, value in points], COLORS[i % SERIES]
            axes.plot(values, [places[label]] * len(values), "o", color=color, markersize=6, alpha=0.75)
            mean = float(np.mean(values))
            axes.plot([mean, mean], [places[label] - 0.22, places[label] + 0.22], color=INK, linewidth=1.6)
        axes.set_yticks(list(places.values()), [_clean(label) for label in places])
        axes.set_ylim(-0.5, len(places) - 0.5)
        axes.grid(visible=False, axis="y")
        axes.locator_params("x", nbins=5)
        axes.ticklabel_format(axis="x", useOffset=False)
        axes.set_xlabel("Bits per byte on what decides (bar: mean)")

    return _render(draw, 380, 90 + 34 * len(by_label), "Bits per byte of each replicate")


def looks_svg(looks: Sequence[tuple[int, Interval]], margin: float | None, *, zero: str) -> str:
    """The interval of each look, (replicates an arm, interval), against no difference and the margin of equivalence.

    Early ones may be many times as wide as the last: they are cut at the edge.
    """
    _, _, *last = looks[-1][1]
    edge = max(3 * abs(end) for end in (*last, 0.6 * (margin or 0.0)))

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for count, (_, estimate, low, high) in looks:
            color = COLORS[0] if high < 0 else COLORS[1] if low > 0 else QUIET
            axes.plot([count, count], [low, high], color=color, linewidth=2)
            axes.plot([count], [estimate], "o", color=color, markersize=5)
        axes.axhline(0, color=INK, linewidth=1)
        if margin is not None:
            axes.axhspan(-margin, margin, color=QUIET, alpha=0.15, linewidth=0)
        axes.set_xticks([count for count, _ in looks])
        axes.set_xlim(min(count for count, _ in looks) - 0.7, max(count for count, _ in looks) + 0.7)
        axes.grid(visible=False, axis="x")
        if max(abs(end) for _, interval in looks for end in interval[2:]) > edge:
            axes.set_ylim(-edge, edge)
        axes.locator_params("y", nbins=5)
        axes.set_xlabel("Replicates an arm")
        axes.set_ylabel(_clean(zero, 60))

    return _render(draw, 380, 240, "Intervals of the looks so far")


def ladder_svg(
    rungs: Sequence[tuple[str, float, float, float, float]],
    band: Sequence[tuple[float, float, float, float]],
    target: tuple[str, float, float, float, float],
    *,
    zero: str,
    theme: Theme = "page",
) -> str:
    """Differences against compute: rungs with their intervals, the band of predictions, and the one at the target.

    Points are (label, FLOPs, estimate, low, high), the band's (FLOPs, middle, low, high).
    """

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        compute, middle, low, high = np.array(band).T
        axes.fill_between(compute, low, high, color=COLORS[0], alpha=0.15, linewidth=0)
        axes.plot(compute, middle, color=COLORS[0], linewidth=1.2)
        for (label, flops, estimate, below, above), color in [*((rung, INK) for rung in rungs), (target, COLORS[1])]:
            axes.plot([flops, flops], [below, above], color=color, linewidth=2)
            axes.plot([flops], [estimate], "o", color=color, markersize=5)
            axes.annotate(_clean(label), (flops, above), (0, 4), textcoords="offset points", ha="center", color=color)
        axes.axhline(0, color=INK, linewidth=1)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda flops, _: f"{flops:.0e}".replace("e+", "e"))
        axes.xaxis.set_minor_formatter(lambda flops, _: "")
        ends = [end for each in (*rungs, target) for end in each[3:]]
        room = 0.15 * (max(*ends, 0) - min(*ends, 0))
        axes.set_ylim(min(*ends, 0) - room, max(*ends, 0) + room)
        axes.set_xlabel("Compute of a run, FLOPs")
        figure.supylabel(_clean(zero, 60), fontsize="medium", color=INK)

    return _render(draw, 560, 320, "Difference of the arms against compute", theme)


def data_url(svg: str) -> str:
    """An SVG for the `src` of an image."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _by_label(metrics: Sequence[Path], labels: Sequence[str]) -> dict[str, list[list[MetricsLine]]]:
    runs: dict[str, list[list[MetricsLine]]] = {}
    for path, label in zip(metrics, labels, strict=True):
        runs.setdefault(_clean(label), []).append(read_metrics(path))
    return runs


def _curves(axes: Axes, runs: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], curve: Curve) -> None:
    for color, (label, seeds) in zip(COLORS, runs.items(), strict=False):
        curves = [points for records in seeds if len((points := _points(records, curve))[0])]
        if not curves:
            continue
        curves = [(x, curve.scale * (_smoothed(y) if curve.smooth else y)) for x, y in curves]
        grid = _grid([x for x, _ in curves])
        values = np.array([np.interp(grid, x, y, left=np.nan, right=np.nan) for x, y in curves])
        known = np.isfinite(values).any(axis=0)
        grid, values = grid[known], values[:, known]
        marker = "o" if len(grid) < 25 else None
        axes.plot(grid, np.nanmean(values, axis=0), color=color, label=label, marker=marker, markersize=3.5)
        if len(curves) > 1:
            low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
            axes.fill_between(grid, low, high, color=color, alpha=0.18, linewidth=0)


def _points(records: Sequence[Mapping[str, Any]], curve: Curve) -> tuple[np.ndarray, np.ndarray]:
    lines = [r for r in records if r.get("kind") == curve.kind and r.get(curve.key) is not None and "tokens" in r]
    points = {line["tokens"]: line[curve.key] for line in lines}
    x = np.array(sorted(points), dtype=float)
    return x, np.array([points[tokens] for tokens in sorted(points)], dtype=float)


def _grid(xs: Sequence[np.ndarray]) -> np.ndarray:
    """Places to draw at: those that were measured while they are few, else evenly spaced ones."""
    every = np.unique(np.concatenate(xs))
    return every if len(every) <= POINTS else np.linspace(every[0], every[-1], POINTS)


def _smoothed(values: np.ndarray, share: float = 0.02) -> np.ndarray:
    """Mean over a centred window of about 2 % of the curve and 5 points at least, shorter at its ends."""
    half = max(2, round(len(values) * share / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    reach = np.minimum(half, np.minimum(places, len(values) - 1 - places))
    return np.asarray((sums[places + reach + 1] - sums[places - reach]) / (2 * reach + 1))


def _tokens_axis(axes: Axes) -> None:
    axes.set_xlim(left=0)
    _thousands(axes.xaxis)
    axes.set_xlabel("Trained tokens")


def _thousands(axis: Axis) -> None:
    """Numbers as 5k or 20M."""
    from matplotlib.ticker import EngFormatter

    axis.set_major_formatter(EngFormatter(sep=""))


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="best", handlelength=1.4, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing measured yet", transform=axes.transAxes, ha="center", va="center", color=QUIET)


def _clean(label: str, longest: int = 24) -> str:
    """A label from outside: no control characters (XML forbids them), not longer than fits."""
    text = plain(label)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _render(draw: Callable[[Figure], None], width: int, height: int, title: str, theme: Theme = "page") -> Markup:
    """Draw on a figure of `width` x `height` CSS pixels and return it as one `<svg>` element, which pages take as it is."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    style = STYLE | {"svg.hashsalt": title}
    with _drawing, matplotlib.rc_context(style), warnings.catch_warnings():
        figure = Figure(figsize=(width / PIXELS, height / PIXELS), dpi=PIXELS, layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # the browser has fonts of its own
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return Markup(_themed(buffer.getvalue(), theme, title))


def _themed(svg: str, theme: Theme, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(width|height)="([\d.]+)pt"', r'\1="\2"', svg)
    svg = re.sub(r'"[^"]*"', lambda attribute: re.sub(r"(\d\.\d\d)\d+", r"\1", attribute[0]), svg)
    svg = re.sub(r"(font(?:-family)?: ?[^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", svg)
    for stand_in, color in (PAGE if theme == "page" else NEUTRAL).items():
        svg = svg.replace(stand_in, color)
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1).strip()
