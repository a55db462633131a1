"""The proof that arms are matched: they differ in which documents they take, and in nothing else.

Checked twice: on the parameters before anything is spent (`differences`), and on what the finished runs read, did and were
made by (`differences_of_runs`), over all of them at once. Each difference has a path for a name; `require_matched` refuses it
unless it is allowed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import combinations
from typing import Any

from tasks.errors import InputError
from tasks.records.hardware import comparable
from tasks.records.layout import ArmFolder, PoolFolder, RunFolder
from tasks.records.ledger import find
from tasks.records.verdict import Control, Pairing
from tasks.spec import Arm, Draw, Experiment, Score
from tasks.store.artifact import Manifest
from tasks.store.root import Root
from tasks.verdict.target import HALVES

SELECTION = {
    f"arm.{field}"
    for field in (
        *("name", "select", "score", "where", "ids", "id_column", "subset"),
        *("share", "share_of", "min_score", "match", "tokens", "documents"),
        *("temperature", "parts", "epochs", "seed"),
    )
}
SEED = "seed"
INPUTS = ("pool", "evaluation", "tokenizer")
FACTS = (
    *("tokens", "steps", "batch_tokens", "code"),
    *("engine", "scored_by", "device", "compute", "gpus", "torch", "cuda"),
)
"""What a result says of a run: how much it was trained, by what code, on what. "compute" holds the attention path."""
TRAINING_VERSION = "training_version"
NAMED = 3
"""So many arms or runs are named with a value, the others are counted."""
BUDGET_FROM = "training.budget_from"
READ_FROM = {"pool.source", "pool.sources", "pool.holdout"}


def differences(experiments: Mapping[str, Experiment]) -> dict[str, str]:
    """How experiments differ apart from selection and seed: {path: "x (label) against y (label)"}, by their labels.

    A pool's name does not count, its source and everything else does. So does the order: allow it to study it as a factor.
    """
    return _different(_filled({label: _parameters(each.identity()) for label, each in experiments.items()}))


def differences_of_runs(root: Root, results: Sequence[Manifest]) -> dict[str, str]:
    """The same for finished runs, by the manifests of their results; and in what they read, did and were made by.

    A fact that a result does not record differs from nothing: see `unknown_of_runs`. The version of the training does: runs
    from before there were versions are unlike those after.
    """
    parameters = {_run(each): _parameters(each.spec) | _read(each) for each in results}
    return _different(_filled(parameters)) | _different(_known(_facts(root, results)))


def unknown_of_runs(root: Root, results: Sequence[Manifest]) -> dict[str, str]:
    """What cannot be compared, for want of a record: {path: "not known for" these runs}."""
    found: dict[str, list[str]] = {}
    for label, facts in _facts(root, results).items():
        for path in (path for path, value in facts.items() if value is None):
            found.setdefault(path, []).append(label)
    return {path: f"not known for {_listed(labels)}" for path, labels in found.items()}


def require_matched(found: Mapping[str, str], allow: Sequence[str] = ()) -> dict[str, str]:
    """Raises InputError naming every difference that `allow` does not cover; returns those that it does.

    `allow` holds paths, such as "arm.order" or "training" for all below it.
    """
    refused = {path: text for path, text in found.items() if not _covered(path, allow)}
    if refused:
        read_from = READ_FROM & refused.keys()  # what else differs follows from that, or no longer matters
        listed = "; ".join(f"{path}: {text}" for path, text in refused.items() if path in read_from or not read_from)
        if read_from:
            raise InputError(
                f"The arms are of different pools, which have different holdouts ({listed}): give one pool all their sources "
                "(data.sources), with an arm for each (select: subset), and train again, as the deployment compare/ready does."
            )
        raise InputError(
            f"The arms differ in more than their selection ({listed}): make them equal, or allow the difference by name "
            f"(allow: {', '.join(refused)})."
        )
    return dict(found)


def require_other_arms(arms: Sequence[Arm], control: Control | None) -> None:
    """Raises InputError when two arms are one but for their name, unless they are meant as a control."""
    for a, b in combinations(arms, 2):
        if a.model_copy(update={"name": b.name}) == b:
            _refuse_equal(a.name, b.name, control)


def require_pairing(pairing: Pairing, control: Control | None) -> None:
    """Raises InputError when runs are to be paired by seed, but the arms are a control, which have seeds of their own."""
    if control and pairing == "seed":
        raise InputError(
            "The pairing is seed, but the arms of a control have seeds of their own: set it to auto or none."
        )


def require_redrawn(arms: Sequence[Arm], redraw: Sequence[Draw], *, nanochat: bool, sampled: Set[str]) -> None:
    """Raises InputError when replicates of an arm would be one training, or when nanochat cannot redraw what is asked for.

    `sampled`: names of the arms of which a budget takes a random part.
    """
    for arm in arms:
        order = "order" in redraw and arm.order == "shuffled"
        sample = "sample" in redraw and (arm.at_random or arm.name in sampled)
        if not ("init" in redraw or order or sample):
            lower = ", or train.tokens below what it holds" if "sample" in redraw else ""
            raise InputError(
                f"redraw is {', '.join(redraw) or 'empty'}, by which all replicates of {arm.name} ({arm.select}, {arm.order}) "
                f"are one training: add init{lower}."
            )
        if nanochat and arm.at_random and order and "sample" not in redraw:
            raise InputError(
                f"redraw has order and no sample, but nanochat can reorder {arm.name} only by drawing it anew: add sample, or "
                "leave order out."
            )


def require_other_rows(
    packed: Mapping[str, Sequence[Manifest]], control: Control | None, *, drawn: Mapping[str, Arm]
) -> None:
    """Raises InputError when two arms, {label: manifests of the packed rows of its draws}, read the same rows in the same order as often.

    In a control, when they do not; there, draws of one selection count as the same. `drawn`: the first draw of each.
    """
    rows = {label: {(each.content, drawn[label].epochs) for each in draws} for label, draws in packed.items()}
    for a, b in combinations(packed, 2):
        if rows[a] & rows[b]:
            _refuse_equal(a, b, control)
        elif control and not (len(packed[a]) > 1 and _one_selection(drawn[a].identity(), drawn[b].identity())):
            _refuse_unequal(a, b)


def draws_of(results: Sequence[Manifest]) -> list[str]:
    """What each run of an arm was trained on: the name of the first arm with the same rows."""
    return [next(other.inputs["arm"] for other in results if _same_rows(other, each)) for each in results]


def require_other_trainings(results: Mapping[str, Sequence[Manifest]], control: Control | None) -> None:
    """Raises InputError when runs of two arms, {label: results}, were trained on the same rows, unless that is a control.

    A control needs seeds of its own for each arm: the same seed on the same rows is the same training. Raises InputError
    too when the runs of one arm were trained on different rows that are no draws of one random or temperature selection.
    """
    for label, runs in results.items():
        if len(set(draws_of(runs))) > 1 and not _drawn(runs):
            raise InputError(f"The runs of {label} were trained on different arms: give each arm a label of its own.")
    for a, b in combinations(results, 2):
        if not any(_same_rows(x, y) for x in results[a] for y in results[b]):
            drawn = _drawn([*results[a], *results[b]]) and len(set(draws_of(results[a]))) == len(results[a])
            if control and not drawn:
                _refuse_unequal(a, b)
            continue
        _refuse_equal(a, b, control)
        if shared := {each.spec["seed"] for each in results[a]} & {each.spec["seed"] for each in results[b]}:
            raise InputError(
                f"{a} and {b} hold the same rows and both have a run with seed {min(shared)}, which is one training twice: "
                "train the arms of a control with different seeds."
            )


def require_fair_budgets(fronts: Sequence[str], allow: Sequence[str]) -> dict[str, str]:
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


def require_halves(score: Score | None, target: str) -> None:
    """Raises InputError when a half of the holdout by score is to decide, but there is no score."""
    if target in HALVES and not score:
        raise InputError(
            f"The target is {target!r}, but the pool is unrated and has no halves by score: set it to all."
        )


def require_two_scores(scores: Set[float], target: str) -> None:
    """Raises InputError when the different `scores` of the holdout's documents do not divide it in halves, one of which is to decide."""
    if len(scores) < 2:
        raise InputError(
            f"The target is {target!r}, but the documents of the holdout are unrated or all rated alike and have no halves by "
            "score: set it to all."
        )


def _refuse_equal(a: str, b: str, control: Control | None) -> None:
    if control != "aa":
        raise InputError(
            f"The arms {a} and {b} are the same selection, the same documents in the same order: compare different ones, or "
            "set control to aa to see how far equal arms seem to differ."
        )


def _refuse_unequal(a: str, b: str) -> None:
    raise InputError(f"control is aa, but the arms {a} and {b} hold different rows: leave it out, or give equal arms.")


def _drawn(results: Sequence[Manifest]) -> bool:
    """Whether the runs are on draws of one selection, which chance decides."""
    first = results[0].spec["arm"]
    return Arm.model_validate(first).at_random and all(_one_selection(each.spec["arm"], first) for each in results)


def _one_selection(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Whether two arms' parameters are equal but for name and seed."""
    names = {*a, *b} - {"name", "seed"}
    return all(a.get(name) == b.get(name) for name in names)


def _same_rows(a: Manifest, b: Manifest) -> bool:
    """Whether two runs were trained equally often on the same rows: by their content where both record it, else by their arms' names."""
    if a.spec["arm"].get("epochs", 1) != b.spec["arm"].get("epochs", 1):
        return False
    ours, theirs = _rows(a), _rows(b)
    return ours == theirs if ours and theirs else bool(a.inputs["arm"] == b.inputs["arm"])


def _rows(result: Manifest) -> str | None:
    """The content of the packed rows that a run was trained on, if it is recorded."""
    arm, training = result.inputs["arm"], result.spec["training"]
    packed = ArmFolder(arm).packed(training["sequence_length"], training.get("packing", "crop"))
    return (result.made_from or {}).get(packed)


def _parameters(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Parameters that must be equal, by dotted path."""
    return {path: value for path, value in _leaves(identity) if path not in SELECTION | {SEED, "pool.name"}}


def _read(result: Manifest) -> dict[str, Any]:
    """What a run read and by which version it was trained: None where the result is older than the record."""
    return {name: result.inputs.get(name) for name in INPUTS} | {
        TRAINING_VERSION: result.facts.get(TRAINING_VERSION),
    }


def _facts(root: Root, results: Sequence[Manifest]) -> dict[str, dict[str, Any]]:
    """{run: {path: what its result records, None if it does not}}.

    Of runs from before there were versions, the commit in the ledger stands for the version of the code.
    """
    found = {}
    for each in results:
        pool, made_from = PoolFolder(each.inputs["pool"]), each.made_from or {}
        facts = {name: each.facts.get(name) for name in FACTS}
        facts["compute"] = comparable(facts["compute"], each.spec["training"].get("window_pattern", "SSSL"))
        facts |= {f"{name}.content": made_from.get(getattr(pool, name)) for name in ("evaluation", "tokenizer")}
        if facts["engine"] == "nanochat":
            facts["nanochat"] = each.facts.get("commit")
        if TRAINING_VERSION not in each.facts:
            entry = find(root, _run(each))
            facts["commit"] = entry.last.commit if entry else None
        found[_run(each)] = facts
    return found


def _filled(parameters: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """With None for what only others have: a parameter that is not there is nothing, not unknown."""
    paths = {path for each in parameters.values() for path in each}
    return {label: {path: each.get(path) for path in paths} for label, each in parameters.items()}


def _known(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {label: {path: value for path, value in each.items() if value is not None} for label, each in facts.items()}


def _different(values: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Where the values of {label: {path: value}} differ: {path: "x (labels) against y (labels)"}."""
    found: dict[str, str] = {}
    for path in sorted({path for each in values.values() for path in each}):
        holders: dict[str, list[str]] = {}
        for label, each in values.items():
            if path in each:
                holders.setdefault(json.dumps(each[path], sort_keys=True), []).append(label)
        if len(holders) > 1:
            shown = (f"{_shown(json.loads(value))} ({_listed(labels)})" for value, labels in holders.items())
            found[path] = " against ".join(shown)
    return found


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


def _run(result: Manifest) -> str:
    return RunFolder.of(result.name).id


def _listed(labels: Sequence[str]) -> str:
    more = len(labels) - NAMED
    return ", ".join(labels[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _shown(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "nothing" if value is None else str(value)
