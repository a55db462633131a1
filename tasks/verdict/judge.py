"""From finished runs on disk to a verdict: {arm: its runs, one a seed} in, one JSON-ready dictionary out.

Reads `runs/<run>/result` of every run: `scores.parquet` (one row a holdout document), `metrics.jsonl`, the manifest.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import combinations, pairwise
from typing import Any, Literal

import numpy as np

from tasks.errors import DamagedError, InputError
from tasks.records.layout import METRICS, SCORES, RunFolder
from tasks.records.metrics import read_metrics
from tasks.records.scores import read_scores
from tasks.store.artifact import Artifact, code_version
from tasks.store.root import Root
from tasks.verdict import answers, matched
from tasks.verdict.paired import (
    FEWEST_CLUSTERS,
    Differences,
    Spread,
    bits_per_byte,
    cluster_sums,
    detectable_difference,
    paired_differences,
    seed_spread,
)
from tasks.verdict.savings import curve_of, mean_curve, tokens_saved
from tasks.verdict.wording import sentence

LENGTHS = (1_000, 2_000, 4_000, 8_000, 16_000)  # bytes: bounds of the length classes
SOURCES = 20  # the largest ones get a row each
DECILES = 10
Target = Literal["all", "lower half", "upper half"]
TARGETS: dict[str, tuple[str, slice]] = {
    "all": ("", slice(0, DECILES)),
    "lower half": (" on the worse-rated half of the holdout", slice(0, DECILES // 2)),
    "upper half": (" on the better-rated half of the holdout", slice(DECILES // 2, DECILES)),
}
"""Which documents of the holdout decide: their name in the sentence, and their score deciles. In the order of the strata."""
PLANNED = 3  # further numbers of seeds, each twice the last, of which the power is said
MOST_SEEDS = 64


@dataclass(frozen=True)
class Holdout:
    """What all runs were scored on: columns of (documents,), clusters numbered from 0."""

    document: np.ndarray
    cluster: np.ndarray
    clusters: int
    blocks: bool
    bytes: np.ndarray
    decile: np.ndarray
    source: np.ndarray


@dataclass(frozen=True)
class Stratum:
    """One row of a comparison: all documents, a score decile, a class of lengths, a source."""

    kind: str
    label: str
    documents: int
    bytes: int


@dataclass(frozen=True)
class Evidence:
    """Sums over the documents of each stratum and cluster: bytes (S, C), and nats (seeds, S, C) per arm."""

    strata: list[Stratum]
    sizes: np.ndarray
    nats: dict[str, np.ndarray]


def judge(
    root: Root,
    name: str,
    arms: Mapping[str, Sequence[str]],
    *,
    allow: Sequence[str] = (),
    outside: Sequence[str] = (),
    core: bool = False,
    target: Target = "all",
    level: float = 0.95,
) -> dict[str, Any]:
    """Compare every pair of arms. `arms`: {label: ids of its finished runs, one a seed}.

    `target`: which documents of the holdout decide. The holdout is a sample of the whole pool, so an arm that leaves out the
    pool's worst documents is examined on them too; "upper half" asks about the better-rated half alone, where in turn an arm of
    such documents is at home. `allow`: differences beside selection that are meant, by path ("arm.order"). `outside`: texts
    from elsewhere that every run was scored on, by the names of `runs/<run>/outside/<name>`. `core`: compare `runs/<run>/core` of every run too. With more than one pair, the
    intervals of the target are Bonferroni-adjusted so that all of them hold together with probability `level`;
    those of strata are not: they explore.
    Raises InputError when arms are not matched, an arm has the same seed twice, or a run is not finished.
    """
    if target not in TARGETS:
        raise InputError(f"The target {target!r} is unknown: take one of {', '.join(TARGETS)}.")
    results = _open(root, arms, lambda run: run.result)
    allowed = _require_comparable(root, results, allow)
    pairs = list(combinations(arms, 2))
    decides = list(TARGETS).index(target)
    holdout, evidence = _evidence(results)
    spread = seed_spread(list(evidence.nats.values()), evidence.sizes)
    texts = {text: _evidence(_open(root, arms, lambda run, text=text: run.outside(text)), text)[1] for text in outside}
    answered = answers.read(_open(root, arms, lambda run: run.core)) if core else None
    first = next(iter(results.values()))[0].manifest
    return {
        "name": name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "code": code_version(),
        "level": level,
        "level_of_a_pair": 1 - (1 - level) / len(pairs),
        "target": target,
        "outside": list(outside),
        "core": core,
        "pool": first.inputs.get("pool"),
        "tokens": first.facts.get("tokens"),
        "holdout": {
            "documents": len(holdout.document),
            "bytes": int(holdout.bytes.sum()),
            "clusters": holdout.clusters,
            "clusters_are": "blocks of neighbouring rows" if holdout.blocks else "single documents",
        },
        "matched": {"allowed": allowed},
        "seed_spread": {
            "standard_deviation": _number(np.sqrt(spread.variance[decides])),
            "degrees_of_freedom": spread.degrees_of_freedom,
        },
        "arms": [_arm(label, results[label], evidence) for label in arms],
        "comparisons": [
            _comparison(a, b, results, evidence, spread, texts, target, level, len(pairs))
            | {"tasks": answers.compare(a, b, answered, level) if answered else []}
            for a, b in pairs
        ],
    }


def _open(
    root: Root, arms: Mapping[str, Sequence[str]], scores: Callable[[RunFolder], str]
) -> dict[str, list[Artifact]]:
    if len(arms) < 2:
        raise InputError(f"A verdict needs at least 2 arms, but {len(arms)} was given: name the runs of another arm.")
    if empty := [label for label, runs in arms.items() if not runs]:
        raise InputError(f"The arm {empty[0]} has no runs: train it first, or leave it out.")
    return {label: [root.open(scores(RunFolder(run))) for run in runs] for label, runs in arms.items()}


def _require_comparable(root: Root, results: Mapping[str, Sequence[Artifact]], allow: Sequence[str]) -> dict[str, str]:
    """Seeds differ within an arm, nothing else does; between arms the selection does. Returns the allowed differences."""
    allowed: dict[str, str] = {}
    for label, runs in results.items():
        seeds = [run.manifest.spec.get("seed") for run in runs]
        if twice := [seed for seed in set(seeds) if seeds.count(seed) > 1]:
            raise InputError(f"The arm {label} has two runs with seed {twice[0]}: give one run a seed.")
        if len({run.manifest.inputs.get("arm") for run in runs}) > 1:
            raise InputError(f"The runs of {label} were trained on different arms: give each arm a label of its own.")
        allowed = matched.merged(allowed, _matched(root, runs, allow))
    heads = [runs[0] for runs in results.values()]
    taken = [head.manifest.inputs.get("arm") for head in heads]
    if len(set(taken)) < len(taken):
        raise InputError(
            f"Two of the arms {', '.join(results)} are the same selection ({taken[0]}): compare different ones."
        )
    return matched.merged(allowed, _matched(root, heads, allow))


def _matched(root: Root, runs: Sequence[Artifact], allow: Sequence[str]) -> dict[str, str]:
    found = [matched.differences_of_runs(root, a.manifest, b.manifest) for a, b in pairwise(runs)]
    return matched.require_matched([_run(run) for run in runs], found, allow)


def _evidence(results: Mapping[str, Sequence[Artifact]], what: str = "holdout") -> tuple[Holdout, Evidence]:
    """Read every run's scores, check that they are of the same documents, and sum them by stratum and cluster."""
    holdout: Holdout | None = None
    nats: dict[str, list[np.ndarray]] = {label: [] for label in results}
    for label, runs in results.items():
        for run in runs:
            table = read_scores(run.path / SCORES).sort_by("document")
            values = table["nats"].to_numpy()
            if not np.isfinite(values).all():
                raise DamagedError(
                    f"{run.name} has {(~np.isfinite(values)).sum():,} scores that are no number: score the run again."
                )
            read = _holdout(table, what)
            if holdout is None:
                holdout = read
            elif not (np.array_equal(holdout.document, read.document) and np.array_equal(holdout.bytes, read.bytes)):
                raise InputError(
                    f"{run.name} was scored on other documents than the runs before it: score it on the same."
                )
            nats[label].append(values)
    strata, sizes, sums = [], [], {label: [] for label in nats}
    for kind, codes, labels in _groupings(holdout):
        shape = (len(labels), holdout.clusters)
        documents = np.bincount(codes, minlength=len(labels))
        size = cluster_sums(holdout.bytes.astype(float), codes, holdout.cluster, shape)
        strata += [
            Stratum(kind, *row)
            for row in zip(labels, documents.tolist(), size.sum(1).astype(int).tolist(), strict=True)
        ]
        sizes.append(size)
        for label, values in nats.items():
            sums[label].append(cluster_sums(np.stack(values), codes, holdout.cluster, shape))
    joined = {label: np.concatenate(parts, axis=1) for label, parts in sums.items()}
    return holdout, Evidence(strata, np.concatenate(sizes), joined)


def _holdout(table: Any, what: str) -> Holdout:
    blocks, cluster = np.unique(table["cluster"].to_numpy(), return_inverse=True)
    if table.num_rows < FEWEST_CLUSTERS:
        raise InputError(
            f"The {what} has {table.num_rows} documents: a verdict needs at least {FEWEST_CLUSTERS}, better 1,000."
        )
    enough = len(blocks) >= FEWEST_CLUSTERS
    return Holdout(
        document=table["document"].to_numpy(),
        cluster=cluster if enough else np.arange(table.num_rows),
        clusters=len(blocks) if enough else table.num_rows,
        blocks=enough,
        bytes=table["bytes"].to_numpy(),
        decile=table["decile"].to_numpy(),
        source=table["source"].to_numpy(zero_copy_only=False).astype(str),
    )


def _groupings(holdout: Holdout) -> list[tuple[str, np.ndarray, list[str]]]:
    """(kind, code of each document, label of each code)."""
    bounds = [0, *LENGTHS]
    lengths = [f"{low // 1000} to {high // 1000} kB" for low, high in pairwise(bounds)] + [
        f"above {bounds[-1] // 1000} kB"
    ]
    found, codes, counts = np.unique(holdout.source, return_inverse=True, return_counts=True)
    largest = np.argsort(-counts, kind="stable")[:SOURCES]
    place = np.full(len(found), len(largest))
    place[largest] = np.arange(len(largest))
    sources = [str(found[i]) or "(no source)" for i in largest] + (["all others"] if len(found) > SOURCES else [])
    return [
        ("all", np.zeros(len(holdout.document), dtype=np.int64), ["all documents"]),
        ("half", holdout.decile.astype(np.int64) * 2 // DECILES, ["worse-rated half", "better-rated half"]),
        ("decile", holdout.decile.astype(np.int64), [f"decile {i + 1}" for i in range(DECILES)]),
        ("length", np.searchsorted(LENGTHS, holdout.bytes, side="right"), lengths),
        ("source", place[codes], sources),
    ]


def _arm(label: str, runs: Sequence[Artifact], evidence: Evidence) -> dict[str, Any]:
    values = bits_per_byte(evidence.nats[label], evidence.sizes)
    strata = [
        {"kind": s.kind, "label": s.label, "bpb": _number(v)}
        for s, v in zip(evidence.strata, values.mean(0), strict=True)
    ]
    return {
        "label": label,
        "arm": runs[0].manifest.inputs.get("arm"),
        "runs": [_run(run) for run in runs],
        "seeds": [run.manifest.spec.get("seed") for run in runs],
        "bpb": _number(values[:, 0].mean()),
        "bpb_by_seed": [_number(value) for value in values[:, 0]],
        "strata": strata,
    }


def _comparison(
    a: str,
    b: str,
    results: Mapping[str, Sequence[Artifact]],
    evidence: Evidence,
    spread: Spread,
    texts: Mapping[str, Evidence],
    target: Target,
    level: float,
    pairs: int,
) -> dict[str, Any]:
    adjusted, decides = 1 - (1 - level) / pairs, list(TARGETS).index(target)
    overall = _paired(a, b, evidence, spread, adjusted)
    explored = _paired(a, b, evidence, spread, level)
    seeds = min(len(evidence.nats[label]) for label in (a, b))
    found = {"a": a, "b": b, "seeds": seeds, "covers_seeds": overall.covers_seeds, "on": TARGETS[target][0]}
    found |= _row(overall, decides)
    excludes_zero = found["low"] is not None and not found["low"] <= 0 <= found["high"]
    found["conclusion"] = (
        "one seed" if not overall.covers_seeds else "better" if excludes_zero else "not distinguishable"
    )
    found["better"] = (a if found["difference"] < 0 else b) if found["conclusion"] == "better" else None
    found["errors"] = {
        "documents": _number(overall.error_documents[decides]),
        "seeds": _number(overall.error_seeds[decides]),
    }
    found["degrees_of_freedom"] = overall.degrees_of_freedom
    found |= _power(found, float(spread.variance[decides]), spread.degrees_of_freedom, len(results), adjusted)
    found["tokens_saved"] = _savings(found, results[a if found["difference"] < 0 else b], evidence, target)
    found["strata"] = [
        {"kind": s.kind, "label": s.label, "documents": s.documents, "bytes": s.bytes} | _row(explored, i)
        for i, s in enumerate(evidence.strata)
        if s.documents
    ]
    found["outside"] = [
        {"label": text} | _row(_paired(a, b, other, seed_spread(list(other.nats.values()), other.sizes), level), 0)
        for text, other in texts.items()
    ]
    found["sentence"] = sentence(found)
    return found


def _paired(a: str, b: str, evidence: Evidence, spread: Spread, level: float) -> Differences:
    return paired_differences(evidence.nats[a], evidence.nats[b], evidence.sizes, spread, level=level)


def _row(found: Differences, i: int) -> dict[str, Any]:
    values = {"difference": found.estimate[i], "low": found.low[i], "high": found.high[i], "p": found.p[i]}
    return {name: _number(value) for name, value in values.items()} | {"clusters": int(found.clusters[i])}


def _power(found: Mapping[str, Any], variance: float, freedom: int, arms: int, level: float) -> dict[str, Any]:
    """What this many seeds could have shown, what more would, and how many would show a difference as large as this one."""

    def smallest(seeds: int) -> float:
        return detectable_difference(found["errors"]["documents"] or 0.0, variance, freedom, arms, seeds, level)

    if not freedom:
        return {"detectable": [], "seeds_needed": None}
    planned = [found["seeds"] * 2**i for i in range(PLANNED + 1)]
    needed = next(
        (n for n in range(found["seeds"] + 1, MOST_SEEDS + 1) if smallest(n) <= abs(found["difference"])), None
    )
    return {
        "detectable": [{"seeds": n, "difference": _number(smallest(n))} for n in planned if n > 1],
        "seeds_needed": {"seeds": needed, "difference": abs(found["difference"])} if needed else None,
    }


def _savings(
    found: Mapping[str, Any], better: Sequence[Artifact], evidence: Evidence, target: Target
) -> dict[str, Any]:
    """The difference and the ends of its interval as shares of trained tokens, by the better arm's curve on the target."""
    sizes = np.array([s.bytes for s in evidence.strata if s.kind == "decile"])
    deciles = TARGETS[target][1]
    lines = [read_metrics(run.path / METRICS) for run in better]
    curves = [curve_of(run) if target == "all" else curve_of(run, sizes, deciles) for run in lines]
    curve = mean_curve(curves)
    ends = sorted(abs(found[end]) for end in ("low", "high")) if found["low"] is not None else [0.0, 0.0]
    if found["low"] is not None and found["low"] <= 0 <= found["high"]:
        ends[0] = 0.0
    amounts = {"estimate": abs(found["difference"]), "low": ends[0], "high": ends[1]}
    return {name: _number(tokens_saved(curve, amount)) for name, amount in amounts.items()}


def _run(result: Artifact) -> str:
    return result.name.split("/")[1]


def _number(value: Any) -> float | None:
    """A plain float for JSON; None for what is not known."""
    return None if value is None or not np.isfinite(value) else float(value)
