"""The proof that arms are matched: they differ in which documents they take, and in nothing else.

Checked twice: on the parameters before anything is spent (`differences`), and on what the finished runs read, did and were
made by (`differences_of_runs`). Each difference has a path for a name; `require_matched` refuses it unless it is allowed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from tasks.errors import InputError
from tasks.records.code import other_code
from tasks.records.layout import RunFolder
from tasks.records.ledger import find
from tasks.spec import Experiment
from tasks.store.artifact import Manifest
from tasks.store.root import Root

SELECTION = {f"arm.{field}" for field in ("name", "select", "share", "tokens", "temperature", "seed")}
SEED = "seed"
INPUTS = ("pool", "evaluation", "tokenizer")
FACTS = ("tokens", "steps", "batch_tokens", "code")
BUDGET_FROM = "training.budget_from"


def differences(a: Experiment, b: Experiment) -> dict[str, str]:
    """How two experiments differ apart from selection and seed: {path: "x against y"}, such as {"training.depth": ...}.

    A pool's name does not count, its source and everything else does. So does the order: allow it to study it as a factor.
    """
    return _differences(a.identity(), b.identity())


def differences_of_runs(root: Root, a: Manifest, b: Manifest) -> dict[str, str]:
    """The same for two finished runs, by the manifests of their results; and pool, holdout, tokenizer, trained tokens, code.

    "commit" is there if the ledger knows that different code trained them.
    """
    found = _differences(a.spec, b.spec)
    for name in INPUTS:
        found |= _compared(name, a.inputs.get(name), b.inputs.get(name))
    for name in FACTS:
        found |= _compared(name, a.facts.get(name), b.facts.get(name))
    first, second = (find(root, RunFolder.of(manifest.name).id) for manifest in (a, b))
    other = other_code(first.last, second.last) if first and second else None
    return found | ({"commit": other} if other else {})


def require_matched(
    labels: Sequence[str], found: Iterable[Mapping[str, str]], allow: Sequence[str] = ()
) -> dict[str, str]:
    """Raises InputError naming every difference that `allow` does not cover; returns those that it does.

    `allow` holds paths, such as "arm.order" or "training" for all below it. `found`: the differences of neighbours in
    `labels`.
    """
    allowed: dict[str, str] = {}
    for (a, b), named in zip(pairwise(labels), found, strict=True):
        refused = {path: text for path, text in named.items() if not _covered(path, allow)}
        if refused:
            listed = "; ".join(f"{path}: {text}" for path, text in refused.items())
            raise InputError(
                f"{a} and {b} differ in more than their selection ({listed}): make them equal, or allow the difference by "
                f"name (allow: {', '.join(refused)})."
            )
        allowed = merged(allowed, {path: f"{a} and {b}: {text}" for path, text in named.items()})
    return allowed


def require_fair_budgets(fronts: Sequence[str], allow: Sequence[str] = ()) -> dict[str, str]:
    """Raises InputError when a budget takes the front of one of the arms, `fronts`, unless that is allowed; returns it if so.

    Arms are often read best first: then the front of a larger arm is its best part, and the arms differ in more than selection.
    """
    if not fronts:
        return {}
    which = ", ".join(fronts)
    if not _covered(BUDGET_FROM, allow):
        raise InputError(
            f"The budget takes the front of {which}, not a fair sample: set budget_from to random, or allow it by name "
            f"(allow: {BUDGET_FROM})."
        )
    return {BUDGET_FROM: f"{which}: the front of the arm"}


def reads_front(result: Manifest) -> bool:
    """Whether a finished run left rows of its arm unread, all at the arm's end. Runs of before `budget_from` read the front."""
    facts, training = result.facts, result.spec["training"]
    left = facts.get("rows_left", 0) * training["sequence_length"]
    return bool(training.get("budget_from", "front") == "front" and left >= facts["batch_tokens"])


def merged(a: Mapping[str, str], b: Mapping[str, str]) -> dict[str, str]:
    """Differences of both, those of one path in one sentence."""
    return {path: "; ".join(side[path] for side in (a, b) if path in side) for path in {**a, **b}}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, str]:
    ours, theirs = dict(_leaves(a)), dict(_leaves(b))
    found: dict[str, str] = {}
    for path in sorted(ours.keys() | theirs.keys()):
        if path not in SELECTION | {SEED, "pool.name"}:
            found |= _compared(path, ours.get(path), theirs.get(path))
    return found


def _compared(path: str, a: Any, b: Any) -> dict[str, str]:
    return {} if a == b else {path: f"{_shown(a)} against {_shown(b)}"}


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested parameters as dotted paths; the columns of a composite score stay together, as one value."""
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and path in ("pool", "arm", "training"):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _covered(path: str, allow: Sequence[str]) -> bool:
    return any(path == allowed or path.startswith(f"{allowed}.") for allowed in allow)


def _shown(value: Any) -> str:
    return "nothing" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
