"""The plan that a comparison registers before its first run, the level of each look, and what all looks together conclude."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from tasks.errors import InputError
from tasks.records import ledger, registration
from tasks.records.registration import PairLook, Plan, Registered, TakenLook
from tasks.records.stopping import Look, StoppingRule
from tasks.records.verdict import Comparison, Verdict
from tasks.store.artifact import code_version
from tasks.store.root import Root
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec
from tasks.verdict.savings import UNKNOWN
from tasks.verdict.sequential import decide, false_alarms, look_alpha
from tasks.verdict.target import HALVES
from tasks.verdict.wording import with_interval, with_looks, worded

LEVEL = 0.95
"""Of all intervals of a comparison together, over all its looks."""


def register(root: Root, plan: ComparisonPlan) -> Registered:
    """Register how a comparison answers its question, unless the newest plan says the same. Call it before the first run."""
    spec, known = plan.spec, plan.registered(root)
    return registration.say(
        root,
        spec.name,
        Plan(
            said=registration.now(),
            code=code_version(),
            runs_before=len(plan.runs) - len(plan.missing(root)),
            looks_before=len(known.looks) if known else 0,
            question=spec.question(plan.pool_id),
            pool=plan.pool_id,
            arms={arm.name: _plain(arm.identity()) for arm in spec.arms},
            training=_plain(spec.training.identity()),
            tokens={run.experiment.arm.name: run.tokens for run in plan.runs},
            replicates=spec.stop.max_replicates if spec.stop else len(spec.seeds),
            redraw=None if spec.redraw is None else tuple(spec.redraw),
            target=spec.target,
            pairing=spec.pairing,
            level=LEVEL,
            strata_columns=tuple(spec.strata),
            texts=tuple(texts.name for texts in spec.texts),
            questions=tuple(questions.name for questions in spec.questions),
            core=spec.core,
            control=spec.control,
            allow=tuple(spec.allowed),
            stop=spec.stop,
        ),
    )


def rounds(spec: ComparisonSpec) -> list[ComparisonSpec]:
    """The comparison with the replicates of each look, rising; without a stopping rule just the comparison.

    Looks too early to conclude anything are left out.
    """
    if spec.stop is None:
        return [spec]
    counts: list[int] = []
    for count in spec.stop.looks:
        if _error(spec, [*counts, count]):
            counts.append(count)
    return [replace(spec, seeds=range(1, count + 1)) for count in counts]


def level_of_look(root: Root, plan: ComparisonPlan) -> float | None:
    """Joint level of all intervals of the look at this plan's runs; None where it may conclude nothing.

    Without a stopping rule it is `LEVEL` at each look.
    """
    if plan.spec.stop is None:
        return LEVEL
    known = plan.registered(root)
    before = [look.replicates for look in (known.looks if known else ()) if look.replicates < plan.replicates]
    error = _error(plan.spec, [*before, plan.replicates])
    return 1 - error if error else None


def over_budget(root: Root, plan: ComparisonPlan, *, first: bool) -> bool:
    """Whether the missing runs would bring the comparison above the dollars of its stopping rule.

    Raises InputError when that is so in the `first` round.
    """
    rule, missing = plan.spec.stop, plan.missing(root)
    if rule is None or rule.max_dollars is None or not missing:
        return False
    spent, more = dollars(root, (run.id for run in plan.runs)), plan.cost(root, missing)[0][-1].dollars or 0.0
    if spent + more <= rule.max_dollars:
        return False
    if first:
        raise InputError(
            f"max_dollars is {rule.max_dollars:g}, but the first round of {len(plan.runs)} runs would bring the cost to "
            f"{spent + more:,.2f}: raise it, or train less."
        )
    return True


def take(root: Root, plan: ComparisonPlan, verdict: Verdict, *, last: bool = False) -> Verdict:
    """Register a look at the verdict on all runs of a plan. Returns the verdict with what all looks conclude and what was registered.

    `last`: no further round is possible.
    """
    spec, before = plan.spec, plan.registered(root)
    concludes = level_of_look(root, plan) is not None
    earlier = [
        look
        for look in (before.looks if before else ())
        if look.target == spec.target and set(look.runs) <= set(verdict.runs)
    ]
    pairs = [_looked(pair, spec, earlier, concludes=concludes, last=last) for pair in verdict.comparisons]
    look = TakenLook(
        taken=registration.now(),
        question=spec.question(plan.pool_id),
        runs=tuple(verdict.runs),
        replicates=plan.replicates,
        level=verdict.level,
        rule=spec.stop,
        dollars=dollars(root, (run.id for run in plan.runs)),
        pairs=tuple(pairs),
        target=spec.target,
        strata_by=verdict.strata_by if spec.target in HALVES else None,
        pairing=spec.pairing,
    )
    registered = note(root, spec.name, look, verdict)
    decided = (
        _decided(pair, looked, spec.stop.margin) if spec.stop else pair
        for pair, looked in zip(verdict.comparisons, pairs, strict=True)
    )
    return said(verdict.model_copy(update={"comparisons": tuple(decided), "registered": registered}))


def note(root: Root, name: str, look: TakenLook, verdict: Verdict) -> Registered:
    """Register a look at a verdict under a name. Returns all that is said of its question, with looks at its runs elsewhere."""
    elsewhere = registration.elsewhere(root, name, look.question, {arm.label: arm.runs for arm in verdict.arms})
    return registration.note(root, name, look).model_copy(update={"elsewhere": elsewhere})


def said(verdict: Verdict) -> Verdict:
    """The verdict with the sentences of its pairs, with what was registered and looked at if anything was."""
    scored, registered = {arm.label: arm for arm in verdict.arms}, verdict.registered
    from_outside = verdict.holdout.from_outside
    pairs = [
        worded(pair, scored[pair.a], scored[pair.b], verdict.control, from_outside=from_outside)
        for pair in verdict.comparisons
    ]
    if registered is not None:
        error, fewest = error_over_looks(registered), min(len(arm.runs) for arm in verdict.arms)
        pairs = [with_looks(pair, registered, error, fewest) for pair in pairs]
    return verdict.model_copy(update={"comparisons": tuple(pairs)})


def so_far(root: Root, plan: ComparisonPlan) -> str:
    """What may be said of the answer while runs are trained: the newest look's interval of each pair, where the plan has looks."""
    rule = plan.spec.stop
    if rule is None:
        return "One look is taken, when all runs are completed."
    known = plan.registered(root)
    taken = [look for look in (known.looks if known else ()) if _most(look.rule) == _most(rule)]
    if not taken:
        return f"The first look is taken at {plan.replicates} replicates an arm."
    return " ".join(
        f"{pair.a} minus {pair.b} at {pair.look.replicates} replicates: "
        f"{with_interval(pair.difference, pair.look.low, pair.look.high, '+')}, {pair.decision}."
        for pair in taken[-1].pairs
    )


def error_over_looks(registered: Registered) -> float:
    """Probability at most that some look concludes something wrong of one pair: 1 - `LEVEL` where one rule planned all looks.

    Looks that ask something else (another target, other halves, another pairing) or that look at other runs, such as those on
    another budget, add their errors. Looks under other names and with other arms count.
    """
    looks = registered.all_looks
    counts = sorted({look.replicates for look in looks if look.replicates > 1})
    plans = {_most(look.rule) for look in looks}
    nested = all(set(a.runs) <= set(b.runs) or set(b.runs) <= set(a.runs) for a, b in combinations(looks, 2))
    asked = {look.asked for look in looks if look.pairing is not None}  # older looks do not say
    one_stream = nested and len({look.target for look in looks}) < 2 and len(asked) < 2
    if one_stream and (len(counts) < 2 or (len(plans) == 1 and None not in plans)):
        return 1 - LEVEL
    if one_stream and plans == {None}:
        return false_alarms(tuple(counts), 1 - LEVEL)
    return min(1.0, sum(1 - look.level for look in looks))


def is_decided(verdict: Verdict) -> bool:
    """Whether no pair of arms needs another round; without a stopping rule none does."""
    return all(pair.decision != "go on" for pair in verdict.comparisons)


def _error(spec: ComparisonSpec, counts: list[int]) -> float:
    """Joint error of all pairs at the last of several looks, given the replicates of each; 0 where it may conclude nothing."""
    assert spec.stop is not None, "without a stopping rule, looks have no error of their own"
    pairs = math.comb(len(spec.arms), 2)
    return pairs * look_alpha(spec.stop, counts, (1 - LEVEL) / pairs)


def _looked(
    pair: Comparison, spec: ComparisonSpec, before: Sequence[TakenLook], *, concludes: bool, last: bool
) -> PairLook:
    """This look at a pair, after those `before` by the same rule on fewer replicates."""
    low, high = (pair.low, pair.high) if concludes else (None, None)
    now = Look(replicates=pair.seeds, low=low, high=high)
    earlier = [
        each.look
        for look in before
        for each in look.pairs
        if _most(look.rule) == _most(spec.stop)
        and (each.a, each.b) == (pair.a, pair.b)
        and each.look.replicates < now.replicates
    ]
    decision = decide(spec.stop, [*earlier, now], last=last) if spec.stop else "go on"
    return PairLook(a=pair.a, b=pair.b, difference=pair.difference, look=now, decision=decision)


def _decided(pair: Comparison, looked: PairLook, margin: float | None) -> Comparison:
    """The pair with what all looks conclude. Tokens saved are those of the arm that is lower now: if an earlier look found the other
    arm better, no savings are known."""
    decided = pair.model_copy(update={"decision": looked.decision, "margin": margin})
    turned = decided.better not in (None, pair.lower)
    return decided.model_copy(update={"tokens_saved": UNKNOWN}) if turned else decided


def _most(rule: StoppingRule | None) -> int | None:
    """What the levels of all looks follow from: another margin or price changes none of them."""
    return rule.max_replicates if rule else None


def _plain(identity: dict[str, Any]) -> dict[str, Any]:
    """As it comes back from a file."""
    plain: dict[str, Any] = json.loads(json.dumps(identity))
    return plain


def dollars(root: Root, runs: Iterable[str]) -> float:
    """What these runs have cost so far."""
    entries = (ledger.find(root, run) for run in runs)
    return sum(entry.dollars for entry in entries if entry)
