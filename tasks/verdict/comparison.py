"""A comparison before its verdict: what it asks, which runs answer it, and what those that are missing cost."""

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.errors import InputError
from tasks.records.cost import CostEstimate, estimate_cost, total
from tasks.records.layout import ArmFolder, PoolFolder, RunFolder, arm_id, run_id
from tasks.records.ledger import entries, spread_between_seeds
from tasks.records.packed import PackedPlan
from tasks.records.scaling import budget_tokens
from tasks.records.verdict import Control, Pairing, Target
from tasks.spec import Arm, Experiment, Pool, Texts, Training
from tasks.store.artifact import code_version
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
)
from tasks.verdict.planning import BESIDE_BYTES, Budget, equal_budget, what_is_read, what_seeds_show
from tasks.verdict.target import find_target


@dataclass(frozen=True)
class ComparisonSpec:
    """What is asked: which of these arms of one pool is better, each trained with every seed on the same budget.

    `budget`: what is equal between arms. `target`: which documents decide. `pairing`: whether runs are
    paired by seed. `allow`: differences besides selection that are meant, by their path. `texts`, `core`: what runs are
    scored on besides the holdout. `control`: "aa" if arms are meant to be equal; then each arm has seeds of its own, for
    equal arms with equal seeds would be one run twice.
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
    core: bool = False
    control: Control | None = None

    @property
    def allowed(self) -> list[str]:
        """`allow`, and what differs between runs because their budgets are equal in bytes."""
        return [*self.allow, *(BESIDE_BYTES if self.budget == "bytes" else ())]

    def require_matched(self) -> None:
        """Raises InputError unless arms have distinct names, differ in selection alone and have a fair budget, and seeds are distinct.

        It is also raised when two arms are the same selection and no control, and when the pool has no halves, or the comparison
        no texts, that are to decide.
        """
        names = [arm.name for arm in self.arms]
        if len(set(names)) < len(names):
            raise InputError(f"The arms are named {', '.join(names)}: give each a name of its own.")
        if len(set(self.seeds)) < len(self.seeds):
            raise InputError(f"The seeds are {', '.join(map(str, self.seeds))}: give each one once.")
        require_pairing(self.pairing, self.control)
        require_other_arms(self.arms, self.control)
        require_halves(self.pool.format, self.target)
        find_target(self.target, [texts.name for texts in self.texts])
        experiments = {arm.name: Experiment(pool=self.pool, arm=arm, training=self.training) for arm in self.arms}
        require_matched(differences(experiments), self.allow)
        require_fair_budgets(names if self.training.budget_from == "front" else [], self.allow)

    def seeds_of(self, arm: Arm) -> list[int]:
        """The seeds that an arm is trained with."""
        shift = list(self.arms).index(arm) * (max(self.seeds) + 1) if self.control else 0
        return [seed + shift for seed in self.seeds]

    def missing_arms(self, root: Root, pool_id: str) -> list[Arm]:
        """The arms without complete packed rows."""
        return [arm for arm in self.arms if not root.find(self.packed(arm, pool_id))]

    def packed(self, arm: Arm, pool_id: str) -> str:
        """Name of an arm's packed rows."""
        return ArmFolder(arm_id(arm, pool_id)).packed(self.training.sequence_length, self.training.packing)


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
        """Divide the budget between arms, all of which are packed.

        Raises InputError when it is more than an arm has, or when two arms hold the same rows and are no control.
        """
        ids = {arm.name: arm_id(arm, pool_id) for arm in spec.arms}
        packed = {arm.name: root.manifest(spec.packed(arm, pool_id)) for arm in spec.arms}
        epochs = {arm.name: arm.epochs for arm in spec.arms}
        require_other_rows(packed, epochs, spec.control)
        facts = {name: manifest.facts for name, manifest in packed.items()}
        tokens = budget_tokens(spec.training, spec.pool.vocab_size)
        budgets = equal_budget(facts, tokens, spec.budget, epochs)
        runs = []
        for arm in spec.arms:
            training = spec.training.model_copy(update={"tokens": budgets[arm.name], "tokens_per_parameter": None})
            for seed in spec.seeds_of(arm):
                experiment = Experiment(pool=spec.pool, arm=arm, training=training, seed=seed)
                runs.append(PlannedRun(run_id(experiment, ids[arm.name]), ids[arm.name], experiment))
        return cls(spec, pool_id, tuple(runs))

    @property
    def runs_by_arm(self) -> dict[str, list[str]]:
        """{name of the arm: ids of its runs, in the order of seeds}."""
        return {arm.name: [run.id for run in self.runs if run.experiment.arm == arm] for arm in self.spec.arms}

    def missing(self, root: Root) -> list[PlannedRun]:
        """The runs without a result."""
        return [run for run in self.runs if not root.find(RunFolder(run.id).result)]

    def unscored(self, root: Root, texts: Sequence[str]) -> list[PlannedRun]:
        """The runs without scores on one of the encoded `texts`, or on CORE where that is asked for."""
        core = self.spec.core
        return [run for run in self.runs if not all(map(root.find, RunFolder(run.id).beside(texts, core)))]

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
                    run.experiment.seed,
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
