"""A comparison before its verdict: what it asks, which runs answer it, and what those that are missing cost."""

from collections.abc import Sequence, Set
from dataclasses import dataclass, replace

from tasks.errors import InputError
from tasks.records import registration
from tasks.records.cost import CostEstimate, estimate_cost, total
from tasks.records.hardware import PATHS, Hardware, settle
from tasks.records.layout import ArmFolder, PoolFolder, RunFolder, arm_id, run_id
from tasks.records.ledger import entries
from tasks.records.packed import PackedPlan
from tasks.records.registration import Registered
from tasks.records.scaling import ModelShape, budget_tokens, choose_batch
from tasks.records.stopping import StoppingRule
from tasks.records.verdict import Comparison, Control, Pairing, Target
from tasks.spec import DRAWS, Arm, Draw, Experiment, Pool, Questions, Score, Texts, Training, spelled_out
from tasks.store.artifact import code_version, fingerprint
from tasks.store.root import Root
from tasks.verdict.matched import (
    differences,
    differences_of_runs,
    require_fair_budgets,
    require_halves,
    require_matched,
    require_other_arms,
    require_other_rows,
    require_pairing,
    require_redrawn,
    require_two_scores,
)
from tasks.verdict.planning import (
    BESIDE_BYTES,
    Budget,
    equal_budget,
    spread_between_seeds,
    what_is_read,
    what_seeds_show,
)
from tasks.verdict.strata import require_half
from tasks.verdict.target import HALVES, find_target


@dataclass(frozen=True)
class ComparisonSpec:
    """What is asked: which of these arms of one pool is better, each trained with every seed on the same budget.

    `budget`: what is equal between arms. `target`: which documents decide. `pairing`: whether runs are paired by seed. `allow`:
    intended differences besides selection, by their path. `texts`, `questions`, `core`: what runs are scored on besides the
    holdout. `control`: "aa" if arms are meant to be equal; each arm then has seeds of its own, since equal arms with equal seeds
    would be one run twice. `strata_by`: the score of the holdout's halves and deciles, if not the pool's; `strata`: columns that
    it is divided by too. `redraw`: what a seed draws anew; the sample is the documents of a random or temperature arm, so that
    each seed trains on a draw of its own, and the rows of a budget. None: all but an arm's documents. `stop`: add replicates in
    rounds by this rule. `check_savings`: train runs of a better arm that stop at the tokens it saved.
    """

    name: str
    pool: Pool
    arms: Sequence[Arm]
    seeds: Sequence[int]
    training: Training
    budget: Budget = "tokens"
    target: Target = "all"
    pairing: Pairing = "auto"
    allow: Sequence[str] = ()
    texts: Sequence[Texts] = ()
    questions: Sequence[Questions] = ()
    core: bool = False
    control: Control | None = None
    strata_by: Score | None = None
    strata: Sequence[str] = ()
    redraw: Sequence[Draw] | None = None
    stop: StoppingRule | None = None
    check_savings: bool = False

    @property
    def score(self) -> Score | None:
        """What the holdout's halves and deciles are by: `strata_by`, else the pool's score."""
        if self.strata_by:
            return spelled_out(self.strata_by)
        return spelled_out(self.pool.score) if self.pool.format != "unrated" else None

    @property
    def held(self) -> tuple[Draw, ...]:
        """What is the same in all runs."""
        return () if self.redraw is None else tuple(draw for draw in DRAWS if draw not in self.redraw)

    @property
    def draws_arms(self) -> bool:
        """Whether each seed of a random or temperature arm trains on a draw of its own."""
        return self.redraw is not None and "sample" in self.redraw

    @property
    def alike(self) -> str | None:
        """The name under which runs settle their hardware; None if it may differ."""
        return None if set(PATHS) & set(self.allow) else self.name

    @property
    def allowed(self) -> list[str]:
        """`allow`, and what differs between runs because their budgets are equal in bytes."""
        return [*self.allow, *(BESIDE_BYTES if self.budget == "bytes" else ())]

    def require_matched(self) -> None:
        """Raises InputError unless arms have distinct names, differ in selection alone and have a fair budget, and seeds are distinct.

        Also when two arms are the same selection but no control, and when the halves, texts or questions that are to decide are
        missing.
        """
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise InputError(f"The arms are named {', '.join(names)}: give each a name of its own.")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"The seeds are {', '.join(map(str, self.seeds))}: give each one once.")
        require_pairing(self.pairing, self.control)
        budget = budget_tokens(self.training, self.pool.vocab_size)
        drawn = [arm for arm in self.arms if self.draws_arms and arm.at_random]
        # The seed of an arm that is drawn anew says no more than which draw is the first.
        alike = [arm.model_copy(update={"seed": 0}) if arm in drawn else arm for arm in self.arms]
        require_other_arms(alike, self.control)
        self.require_redrawn(set() if budget is None else set(names))
        if self.stop and drawn and budget is None:
            raise InputError(
                f"The budget is empty, but later rounds draw {', '.join(arm.name for arm in drawn)} anew and may find fewer tokens in a draw: set "
                "train.tokens a little below what such an arm holds."
            )
        if self.check_savings and self.training.engine == "nanochat":
            raise InputError(
                "check_savings trains on a part of an arm, but nanochat trains on whole arms: set it to false, or engine to builtin."
            )
        if len(set(self.strata)) < len(self.strata):
            raise InputError(f"The strata are by {', '.join(self.strata)}: give each column once.")
        require_halves(self.score, self.target)
        find_target(self.target, [each.name for each in self.texts], [each.name for each in self.questions])
        experiments = {arm.name: Experiment(pool=self.pool, arm=arm, training=self.training) for arm in self.arms}
        require_matched(differences(experiments), self.allow)
        require_fair_budgets(names if self.training.budget_from == "front" else [], self.allow)

    def require_redrawn(self, sampled: Set[str]) -> None:
        """Raises InputError when replicates of an arm would be one training. `sampled`: arms that a budget may leave rows of."""
        if self.redraw is not None:
            random = sampled if self.training.budget_from == "random" else set()
            require_redrawn(self.arms, self.redraw, nanochat=self.training.engine == "nanochat", sampled=random)

    def seeds_of(self, arm: Arm) -> list[int]:
        """The seeds that an arm is trained with. In a control no two arms share a seed, however many replicates are added."""
        place = list(self.arms).index(arm)
        if self.control and self.redraw is not None:
            return [(seed - 1) * len(self.arms) + place + 1 for seed in self.seeds]
        shift = place * (max(self.seeds) + 1) if self.control else 0
        return [seed + shift for seed in self.seeds]

    def drawn(self, arm: Arm, seed: int) -> Arm:
        """The arm that a run with this seed trains on: seed 1 on the arm as given, each other seed on a draw of its own.

        nanochat reads an arm in stored order, so for it a shuffled arm is drawn anew to change its order too.
        """
        upstream = self.training.engine == "nanochat" and self.redraw is not None and "order" in self.redraw
        if (self.draws_arms and arm.at_random) or (upstream and arm.order == "shuffled"):
            return arm.model_copy(update={"seed": arm.seed + seed - 1})
        return arm

    def draws_of(self, arm: Arm) -> list[Arm]:
        """What the seeds of an arm train on: one arm, or a draw for each seed."""
        return list({(drawn := self.drawn(arm, seed)).seed: drawn for seed in self.seeds_of(arm)}.values())

    def missing_arms(self, root: Root, pool_id: str) -> list[Arm]:
        """The arms, and the draws of arms, without complete packed rows."""
        drawn = [each for arm in self.arms for each in self.draws_of(arm)]
        return [arm for arm in drawn if not root.find(self.packed(arm, pool_id))]

    def question(self, pool_id: str) -> str:
        """What is compared, as a fingerprint. Looks at one question add up, whatever the budget and however it is answered."""
        arms = [arm.of(self.pool).identity() for arm in self.arms]
        return fingerprint(pool_id, arms, self.training.on(None).identity(), self.control)

    def packed(self, arm: Arm, pool_id: str) -> str:
        """Name of an arm's packed rows."""
        return ArmFolder(arm_id(arm, self.pool, pool_id)).packed(self.training.sequence_length, self.training.packing)


@dataclass(frozen=True)
class PlannedRun:
    """One arm with one seed; `id` and `arm_id` name the folders of its run and its arm."""

    id: str
    arm_id: str
    experiment: Experiment

    @property
    def tokens(self) -> int:
        """Its budget in trained tokens."""
        return self.experiment.training.tokens or 0


@dataclass(frozen=True)
class ComparisonPlan:
    """The runs that answer a comparison, arm by arm, and the pool they have in common."""

    spec: ComparisonSpec
    pool_id: str
    runs: tuple[PlannedRun, ...]

    @classmethod
    def make(cls, root: Root, spec: ComparisonSpec, pool_id: str) -> "ComparisonPlan":
        """Divide the budget between arms, all of which are packed: every draw of an arm gets the same.

        An empty budget is what the smallest draw among all planned replicates holds; once registered, it stays. What later draws hold
        is known only when they are packed.

        Raises InputError when the budget is more than an arm has, when it takes all rows of an arm whose replicates redraw nothing
        else, when two arms hold the same rows but are no control, or when a half of the holdout by score is to decide but its
        documents all have one score, or too few are in it.
        """
        if spec.score and spec.target in HALVES:
            divided = root.manifest(PoolFolder(pool_id).strata(spec.score))
            require_two_scores(set(divided.facts["scores"].values()), spec.target)
            require_half(root, pool_id, spec.score, spec.target)
        packed = {
            arm.name: [root.manifest(spec.packed(drawn, pool_id)) for drawn in spec.draws_of(arm)] for arm in spec.arms
        }
        require_other_rows(packed, spec.control, drawn={arm.name: spec.drawn(arm, 1) for arm in spec.arms})
        smallest = {
            name: min((each.facts for each in draws), key=lambda facts: facts["tokens_per_epoch"])
            for name, draws in packed.items()
        }
        tokens = budget_tokens(spec.training, spec.pool.vocab_size)
        held = {arm.name: smallest[arm.name]["tokens_per_epoch"] * arm.epochs for arm in spec.arms}
        known = registration.read(root, spec.name).about(spec.question(pool_id))
        if tokens is None and spec.draws_arms and spec.budget == "tokens" and known and known.plan.by_size:
            tokens = min(known.plan.tokens.values())  # not those of a judgement by hand on other runs
            least = min(held, key=lambda name: held[name])
            if held[least] < tokens:
                raise InputError(
                    f"The runs so far are trained on {tokens:,} tokens, what the smallest draw held, but a new draw of {least} holds "
                    f"only {held[least]:,}: set train.tokens to that or less, and give the comparison another name."
                )
        budgets = equal_budget(smallest, tokens, spec.budget, {arm.name: arm.epochs for arm in spec.arms})
        batch = choose_batch(ModelShape.of(spec.training, spec.pool.vocab_size), spec.training.batch_tokens)
        spec.require_redrawn({name for name in held if held[name] - budgets[name] >= batch})
        runs = []
        for arm in spec.arms:
            training = spec.training.on(budgets[arm.name])
            for seed in spec.seeds_of(arm):
                drawn = spec.drawn(arm, seed)
                experiment = Experiment(pool=spec.pool, arm=drawn, training=training, seed=seed, held=spec.held)
                id = arm_id(drawn, spec.pool, pool_id)
                runs.append(PlannedRun(run_id(experiment, id), id, experiment))
        return cls(spec, pool_id, tuple(runs))

    @property
    def replicates(self) -> int:
        """Runs of each arm."""
        return len(self.spec.seeds)

    @property
    def runs_by_arm(self) -> dict[str, list[str]]:
        """{name of the arm: ids of its runs, in the order of seeds}."""
        return {
            arm.name: [run.id for run in self.runs if run.experiment.arm.name == arm.name] for arm in self.spec.arms
        }

    def registered(self, root: Root) -> Registered | None:
        """What is registered about its question so far, None if nothing is."""
        return registration.read(root, self.spec.name).about(self.spec.question(self.pool_id))

    def shortened(self, pair: Comparison) -> "ComparisonPlan":
        """The runs of the pair's better arm that stop at the tokens it saved; none where it saved none."""
        training = self.spec.training.on(pair.tokens_saved.budget)
        runs = []
        for run in self.runs if training.tokens else ():
            if run.experiment.arm.name == pair.better:
                experiment = run.experiment.model_copy(update={"training": training})
                runs.append(PlannedRun(run_id(experiment, run.arm_id), run.arm_id, experiment))
        return replace(self, runs=tuple(runs))

    def missing(self, root: Root) -> list[PlannedRun]:
        """The runs without a result."""
        return [run for run in self.runs if not root.find(RunFolder(run.id).result)]

    def unscored(self, root: Root, texts: Sequence[str], questions: Sequence[str] = ()) -> list[PlannedRun]:
        """The runs without scores on one of the encoded `texts` or `questions`, or on CORE where that is asked for."""
        core = self.spec.core
        return [run for run in self.runs if not all(map(root.find, RunFolder(run.id).beside(texts, core, questions)))]

    def require_alike(self, root: Root) -> None:
        """Raises InputError unless the complete runs can be judged together with those that this code would train.

        They must be matched, made from what their arms and their pool hold now, and trained by this version of the code. The
        versions of preparation and training are a part of their names.
        """
        complete = [found for run in self.runs if (found := root.find(RunFolder(run.id).result))]
        root.require_current(complete)
        require_matched(differences_of_runs(root, complete), self.spec.allowed)
        now = code_version()
        for other in (found for found in complete if found.facts["code"] != now and "code" not in self.spec.allowed):
            raise InputError(
                f"{RunFolder.of(other.name).id} was trained by version {other.facts['code']}, the missing runs would be by "
                f"{now}: allow the difference by name (allow: code), or delete {RunFolder.of(other.name).folder} to train "
                "it again."
            )
        if self.spec.alike and complete:
            first = complete[0]
            run = RunFolder.of(first.name).id
            settle(root, self.spec.alike, self.spec.training, self.pool_id, run, Hardware.of(first.facts))

    def texts(self, root: Root) -> list[str]:
        """What each arm trains on, a sentence an arm; another seed takes other rows of the same arm."""
        first = {run.experiment.arm.name: run for run in reversed(self.runs)}
        return [
            what_is_read(
                label,
                PackedPlan.make(
                    root,
                    run.arm_id,
                    run.experiment.training,
                    run.experiment.seed_of("sample"),
                    self.spec.pool.vocab_size,
                    run.experiment.arm.epochs,
                ).text,
            )
            for label, run in reversed(first.items())
        ]

    def cost(self, root: Root, runs: Sequence[PlannedRun]) -> tuple[list[CostEstimate], str]:
        """What training `runs` costs, one estimate an arm and the sum last; and what the seeds can show, in a sentence."""
        ledger = entries(root)
        holdout_tokens = root.manifest(PoolFolder(self.pool_id).evaluation).facts["tokens"]
        costs: list[CostEstimate] = []
        for label in dict.fromkeys(run.experiment.arm.name for run in runs):
            of_arm = [run for run in runs if run.experiment.arm.name == label]
            costs.append(
                estimate_cost(
                    of_arm[0].experiment.training,
                    of_arm[0].tokens,
                    vocab_size=self.spec.pool.vocab_size,
                    holdout_tokens=holdout_tokens,
                    runs=len(of_arm),
                    label=label,
                    ledger=ledger,
                )
            )
        if len(costs) > 1:
            costs.append(total(costs, "all"))
        spread = spread_between_seeds(ledger, runs[0].experiment.training)
        return costs, what_seeds_show(spread, len(self.spec.arms), len(self.spec.seeds))
