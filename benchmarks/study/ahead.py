"""Several comparisons under one root whose runs are one batch: all are registered first, then what is missing of any is trained and scored.

No GPU waits for a verdict, and a run that two comparisons have in common is trained once. `run_comparison` finds all of it complete.
"""

from collections.abc import Sequence

from flows.comparison import Hands, encode_asked, plan_of
from tasks.engines.shared import Scoring, score
from tasks.store.root import Root
from tasks.verdict import looks
from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun


def register_all(root: Root, specs: Sequence[ComparisonSpec], hands: Hands) -> list[ComparisonPlan]:
    """Plan the first look at each comparison, and register all of them.

    Raises InputError for one that cannot be trained as asked, before any other than those before it is registered.
    """
    plans = []
    for spec in specs:
        spec.require_matched()
        plans.append(plan_of(root, looks.rounds(spec)[0], hands))
        looks.over_budget(root, plans[-1], first=True)
        looks.register(root, plans[-1])
    return plans


def train_all(root: Root, plans: Sequence[ComparisonPlan], hands: Hands) -> int:
    """Train the missing runs of registered plans, those of one depth together, depths in the order of plans. Returns how many."""
    missing: dict[str, tuple[ComparisonPlan, PlannedRun]] = {}
    for plan in plans:
        if wanted := plan.missing(root):
            plan.require_alike(root)
        for run in wanted:
            missing.setdefault(run.id, (plan, run))
    # a trainer compiles anew for another depth
    depths = list(dict.fromkeys(plan.spec.training.depth for plan in plans))
    runs = sorted(missing.values(), key=lambda each: depths.index(each[0].spec.training.depth))
    if runs:
        hands.train(runs)
    return len(runs)


def score_all(root: Root, plans: Sequence[ComparisonPlan], hands: Hands) -> int:
    """Score their runs on whatever texts and questions one of the plans asks for. Returns how many there were to score."""
    texts: dict[str, set[str]] = {}
    questions: dict[str, set[str]] = {}
    core = set()
    for plan in plans:
        named, asked = encode_asked(root, plan, hands)
        for run in plan.unscored(root, named, asked):
            texts.setdefault(run.id, set()).update(named)
            questions.setdefault(run.id, set()).update(asked)
            if plan.spec.core:
                core.add(run.id)
    score(root, [Scoring(run, tuple(sorted(texts[run])), tuple(sorted(questions[run])), run in core) for run in texts])
    return len(texts)
