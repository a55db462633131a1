"""Judging existing runs by hand: a look, counted with the other looks at what was registered about the same runs.

A plan is about the runs if it has their pool, their training on any budget, and their arms' selections, whatever the arms' names and
whichever draws of a random arm they are. It may be registered under another name than the verdict's: a new name does not reset the
count. Where the judgement departs from what was registered, the change is added.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.errors import DamagedError
from tasks.records import registration
from tasks.records.layout import RunFolder, VerdictFolder
from tasks.records.registration import PairLook, Plan, Registered, TakenLook
from tasks.records.stopping import Look
from tasks.records.verdict import Verdict
from tasks.spec import DRAWS, Arm, Pool
from tasks.store.artifact import code_version, fingerprint
from tasks.store.root import Root
from tasks.verdict.looks import dollars, note, said
from tasks.verdict.target import HALVES, unmarked

BUDGET = ("tokens", "tokens_per_parameter")
Fields = Mapping[str, Any]
"""An arm, a pool or a training as a file holds it."""


def take(root: Root, verdict: Verdict) -> Verdict:
    """Register a look at the runs of a verdict, and what it changes. Returns the verdict with the registered plan and all looks."""
    runs = {arm.label: root.manifest(RunFolder(arm.runs[0]).result).spec for arm in verdict.arms}
    name, known = _registered(root, verdict, runs)
    plan = _plan(verdict, runs, known)
    registration.say(root, name, plan)

    pairs = (
        PairLook(
            a=pair.a,
            b=pair.b,
            difference=pair.difference,
            look=Look(replicates=pair.seeds, low=pair.low, high=pair.high),
            decision="go on",
        )
        for pair in verdict.comparisons
    )
    look = TakenLook(
        taken=registration.now(),
        question=plan.question,
        runs=tuple(verdict.runs),
        replicates=min(len(arm.runs) for arm in verdict.arms),
        level=verdict.level,
        rule=None,
        dollars=dollars(root, verdict.runs),
        pairs=tuple(pairs),
        target=plan.target,
        strata_by=verdict.strata_by if verdict.target in HALVES else None,
        pairing=verdict.pairing,
    )
    return said(verdict.model_copy(update={"registered": note(root, name, look, verdict)}))


def _registered(root: Root, verdict: Verdict, runs: Mapping[str, Fields]) -> tuple[str, Registered | None]:
    """The name under which a plan about the runs, {label: spec of one}, is registered, with all that is; else the verdict's name."""
    first = next(iter(runs.values()))
    asked = _selections((run["arm"] for run in runs.values()), first["pool"])
    for name in sorted(VerdictFolder.all_registered(root), key=lambda name: name != verdict.name):
        try:
            registered = registration.read(root, name)
        except DamagedError:
            if name == verdict.name:
                raise
            continue  # of another verdict
        for plan in registered.plans:
            alike = (plan.pool, plan.control) == (verdict.pool, verdict.control)
            alike &= _without(plan.training, *BUDGET) == _without(first["training"], *BUDGET)
            if alike and asked <= _selections(plan.arms.values(), first["pool"]):
                return name, registered.about(plan.question)
    return verdict.name, None


def _plan(verdict: Verdict, runs: Mapping[str, Fields], known: Registered | None) -> Plan:
    """How the judgement answers the question: as was registered, but for what it does otherwise."""
    tokens = {label: run["training"]["tokens"] or verdict.tokens for label, run in runs.items()}
    now: dict[str, Any] = {
        "said": registration.now(),
        "code": code_version(),
        "runs_before": len(verdict.runs),
        "looks_before": len(known.looks) if known else 0,
        "tokens": tokens,
        "replicates": max(len(arm.runs) for arm in verdict.arms),
        "target": _target(verdict, known),
        "pairing": verdict.pairing,
        "level": verdict.level,
        "strata_columns": verdict.strata_columns,
        "stop": None,
    }
    if known:
        if known.newest.stop is None:  # with a rule they were a limit
            now["replicates"] = max(now["replicates"], known.newest.replicates)
        if set(tokens.values()) == set(known.newest.tokens.values()):
            del now["tokens"]  # the same under other names
        return known.newest.model_copy(update=now)
    arms = {label: dict(run["arm"]) for label, run in runs.items()}
    training = dict(next(iter(runs.values()))["training"])
    redrawn = tuple(draw for draw in DRAWS if any(draw in (arm.redrawn or ()) for arm in verdict.arms))
    return Plan(
        **now,
        question=fingerprint(verdict.pool, arms, _without(training, *BUDGET), verdict.control),
        pool=verdict.pool,
        arms=arms,
        training=training,
        redraw=redrawn if any(arm.draws for arm in verdict.arms) else None,
        texts=tuple(map(unmarked, verdict.outside)),
        questions=tuple(map(unmarked, verdict.questions)),
        core=verdict.core,
        control=verdict.control,
        allow=tuple(verdict.matched.allowed),
    )


def _target(verdict: Verdict, known: Registered | None) -> str:
    """As comparisons register it: texts and questions without the fingerprint, unless it was said with that."""
    said_so = known is not None and known.newest.target == verdict.target
    return verdict.target if said_so else unmarked(verdict.target)


def _selections(arms: Iterable[Fields], pool: Fields) -> set[str]:
    """What arms take of a pool, but for their names and the draws of random ones."""
    taken = (Arm.model_validate(arm).of(Pool.model_validate(pool)).identity() for arm in arms)
    return {json.dumps(_without(arm, "name", "seed"), sort_keys=True) for arm in taken}


def _without(fields: Fields, *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
