"""`verdicts/<name>/registered.json`: what a comparison registered before its first run, and every look that was taken at it.

Both lists only grow. A changed plan is added after the first one, with the number of runs and looks that existed by then, so
whoever reads the verdict sees what was decided after looking.

A question is what is compared: the arms, their pool, how they are trained. How it is answered (target, margin, stopping rule,
replicates, budget) may change without making it another question, so looks at it add up.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Literal

from pydantic import Field

from tasks.errors import DamagedError
from tasks.records.layout import VerdictFolder
from tasks.records.record import Record
from tasks.records.stopping import Decision, Look, StoppingRule
from tasks.spec import Draw, Score
from tasks.store.root import Root

MOMENT = ("said", "code", "runs_before", "looks_before", "training")
"""What equal plans may differ in. The training is a part of the question, but for its budget, which `tokens` says."""


class Plan(Record):
    """How a question is to be answered, and when that was said."""

    said: str
    """ISO 8601, UTC."""
    code: str
    runs_before: int
    """Runs of the question that were complete by then."""
    looks_before: int
    question: str
    pool: str
    """Its name below pools/."""
    arms: dict[str, dict[str, Any]]
    """{label: parameters of its selection}"""
    training: dict[str, Any]
    tokens: dict[str, int]
    """{label: trained tokens of a run}"""
    replicates: int
    """Of an arm; with a stopping rule, at most."""
    redraw: tuple[Draw, ...] | None
    """What each replicate redraws; None: what a run's seed draws."""
    target: str
    pairing: str
    level: float
    strata: Literal["exploration"] = "exploration"
    """Whether strata decide anything: they say where to look."""
    strata_columns: tuple[str, ...] = ()
    """Columns of the pool that there are strata by too."""
    clean: Literal["beside"] = "beside"
    """The difference without documents that have near copies in arms decides nothing: it is shown beside the one that does."""
    texts: tuple[str, ...]
    questions: tuple[str, ...] = ()
    core: bool
    control: str | None
    allow: tuple[str, ...]
    stop: StoppingRule | None

    @property
    def by_size(self) -> bool:
        """Whether the budget is what the arms hold, none having been given."""
        return self.training["tokens"] is None and self.training.get("tokens_per_parameter") is None

    def changes_from(self, other: "Plan") -> dict[str, str]:
        """What another plan said otherwise: {field: "was, now"}."""
        ours, theirs = self.model_dump(), other.model_dump()
        return {
            name: f"{_shown(theirs[name])}, now {_shown(ours[name])}"
            for name in ours
            if name not in MOMENT and ours[name] != theirs[name]
        }


class PairLook(Record):
    """What one look saw of a pair of arms, and what all looks so far conclude; "go on" where there is no stopping rule."""

    a: str
    b: str
    difference: float
    look: Look
    decision: Decision


class TakenLook(Record):
    """One look at a question: from `runs` on, the verdict on `replicates` an arm."""

    taken: str
    """ISO 8601, UTC."""
    question: str
    runs: tuple[str, ...]
    replicates: int
    """Of the arm with fewest."""
    level: float
    """Of the intervals of all pairs together."""
    rule: StoppingRule | None
    dollars: float
    """That the runs had cost by then."""
    pairs: tuple[PairLook, ...]
    target: str = "all"
    """Which documents decided."""
    strata_by: Score | None = None
    """The score of the halves, where one of them decided. Unknown of older looks, as the next."""
    pairing: str | None = None

    @property
    def asked(self) -> tuple[str, str, str]:
        """What it asked of its runs; two looks that ask differently are two chances to be wrong."""
        return self.target, str(self.strata_by), self.pairing or ""

    def same_as(self, other: "TakenLook") -> bool:
        """Whether the same was asked of the same runs at the same level, whatever it was called."""
        ours, theirs = ((set(look.runs), look.rule, look.level) for look in (self, other))
        unknown = None in (self.pairing, other.pairing) and self.target == other.target
        return ours == theirs and (unknown or self.asked == other.asked)


class Registered(Record):
    """What was said about a question, and the looks at it: as a verdict shows them."""

    plan: Plan
    """The first."""
    later: tuple[Plan, ...] = ()
    """Those that changed it, in the order in which they were said."""
    looks: tuple[TakenLook, ...] = ()
    others: int = 0
    """Other questions that were registered under the same name before."""
    elsewhere: dict[str, tuple[TakenLook, ...]] = Field(default_factory=dict)
    """{name: looks at runs of two of the verdict's arms under it, if it is another one, or with other arms}"""

    @property
    def all_looks(self) -> list[TakenLook]:
        """Those under other names or with other arms included, each once."""
        found: list[TakenLook] = []
        for look in (*self.looks, *(each for looks in self.elsewhere.values() for each in looks)):
            if not any(look.same_as(known) for known in found):
                found.append(look)
        return found

    @property
    def newest(self) -> Plan:
        """The plan that holds now."""
        return self.later[-1] if self.later else self.plan

    @property
    def changes(self) -> list[tuple[Plan, dict[str, str]]]:
        """Each later plan, with what it changed in the one before it."""
        plans = (self.plan, *self.later)
        return [(new, new.changes_from(old)) for old, new in pairwise(plans)]


class Registration(Record):
    """The file: plans and looks of every question under one name, in the order in which they came."""

    format: Literal[1] = 1
    name: str
    plans: tuple[Plan, ...] = ()
    looks: tuple[TakenLook, ...] = ()

    def about(self, question: str) -> Registered | None:
        """What was said of one question, None if nothing was."""
        plans = [plan for plan in self.plans if plan.question == question]
        if not plans:
            return None
        looks = tuple(look for look in self.looks if look.question == question)
        others = {plan.question for plan in self.plans[: self.plans.index(plans[0])]}
        return Registered(plan=plans[0], later=tuple(plans[1:]), looks=looks, others=len(others))


def read(root: Root, name: str) -> Registration:
    """What is registered under the name of a comparison, here or in the remote root. Raises DamagedError when it cannot be read."""
    return _parsed(root, name, root.read(VerdictFolder(name).registered))


def say(root: Root, name: str, plan: Plan) -> Registered:
    """Register a plan unless the newest one of its question says the same. Returns all that is said of the question."""

    def said(known: Registration) -> Registration:
        about = known.about(plan.question)
        if about is not None and not plan.changes_from(about.newest):
            return known
        return known.model_copy(update={"plans": (*known.plans, plan)})

    return _about(_edit(root, name, said), plan.question)


def note(root: Root, name: str, look: TakenLook) -> Registered:
    """Register a look, unless one that asked the same of the same runs is there. Returns all that is said of the question."""

    def noted(known: Registration) -> Registration:
        if any(each.question == look.question and each.same_as(look) for each in known.looks):
            return known
        return known.model_copy(update={"looks": (*known.looks, look)})

    return _about(_edit(root, name, noted), look.question)


def elsewhere(
    root: Root, name: str, question: str, arms: Mapping[str, Sequence[str]]
) -> dict[str, tuple[TakenLook, ...]]:
    """Looks at runs of two or more of `arms`, {label: runs}, under other names than `name` or at another `question`: {name: looks}.

    Neither another name nor a further arm makes the data new: whoever renames a comparison looks again.
    """
    found: dict[str, tuple[TakenLook, ...]] = {}
    for other in sorted(VerdictFolder.all_registered(root)):
        with contextlib.suppress(DamagedError):  # of another verdict, which says so itself
            at_both = tuple(
                look
                for look in read(root, other).looks
                if (other != name or look.question != question)
                and sum(not set(look.runs).isdisjoint(runs) for runs in arms.values()) > 1
            )
            found |= {other: at_both} if at_both else {}
    return found


def now() -> str:
    """This moment, ISO 8601, UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _about(registration: Registration, question: str) -> Registered:
    about = registration.about(question)
    assert about is not None, "a look is taken at what was registered"
    return about


def _edit(root: Root, name: str, change: Callable[[Registration], Registration]) -> Registration:
    """Write what `change` makes of the present registration, whichever hosts add to it."""

    def edited(content: bytes | None) -> bytes:
        known = _parsed(root, name, content)
        changed = change(known)
        return content if content is not None and changed == known else changed.to_json().encode()

    return _parsed(root, name, root.edit(VerdictFolder(name).registered, edited))


def _parsed(root: Root, name: str, content: bytes | None) -> Registration:
    if content is None:
        return Registration(name=name)
    path = root.path(VerdictFolder(name).registered)
    return Registration.parse(content, path, "move it away, and the comparison registers again")


def _shown(value: object) -> str:
    if value is None or value == ():
        return "nothing"
    if isinstance(value, tuple | list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{key} {part}" for key, part in value.items() if part is not None)
    return str(value)
