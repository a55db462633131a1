"""The typed parameters of an experiment: what the UI's run form asks for and what an artifact's identity is made of.

A field either determines the content of an artifact (then it is part of its fingerprint) or says how it is made (workers,
host, device). The latter are declared with `how(...)` and left out of `identity()`: the same arm prepared with 2 or 64
workers is the same arm.
"""

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from tasks.store.urls import SIGNATURE, require_unsigned

PEDAGOGICAL = "pedagogical_structure_average"
FACTUAL = "factual_accuracy_average"
ENGAGEMENT = "lesson_engagement_average"

SOURCE = "az://raw/fineweb-edu"
"""Where the documents of a pool are if nothing else is said."""

Url = Annotated[
    str, AfterValidator(require_unsigned), Field(min_length=1, json_schema_extra={"pattern": f"^(?!.*{SIGNATURE})"})
]
"""A URL or a path. One with a signature is refused by the server's schema, before it is stored, and here."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
"""A readable part of an artifact's name: lower case, digits, - and _."""


def how(default: Any, **field: Any) -> Any:
    """A field that says how an artifact is made, not what it is: no part of its identity."""
    return Field(default, json_schema_extra={"identity": False}, **field)


def if_set(default: Any, **field: Any) -> Any:
    """A field that is part of the identity only when it is set: what was made before the field existed keeps its name."""
    return Field(default, json_schema_extra={"identity": "if set"}, **field)


class Spec(BaseModel):
    """Base of all parameters: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    def identity(self) -> dict[str, Any]:
        """The fields that determine content, as JSON-ready values, in declaration order."""
        identity = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            if isinstance(extra, dict) and extra.get("identity") is False:
                continue
            value = getattr(self, name)
            if isinstance(extra, dict) and extra.get("identity") == "if set" and value == field.default:
                continue
            identity[name] = _identity(value)
        return identity


def _identity(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_identity(each) for each in value]
    return value.identity() if isinstance(value, Spec) else value


class Pool(Spec):
    """The rated documents that every arm of an experiment draws from, with their holdout and tokenizer."""

    name: Name = Field("pool", description="Readable part of the pool's name.")
    source: Url = Field(
        SOURCE,
        description="Where the parquet files are: az://container/prefix, file:///folder, or hf://organisation/dataset. Not read if "
        "sources are given.",
    )
    sources: dict[Name, Url] | None = if_set(
        None,
        min_length=1,
        description="Several sources instead of one, each a name and a URL: {top16: az://..., rand16: az://...}. All their files make "
        "one pool with one holdout and one tokenizer; arm.subset names one of them.",
    )
    holdout: Url | None = if_set(
        None,
        description="Take the holdout from here, any parquet files with the text column, instead of from the pool. Arms leave out "
        "documents with the same text.",
    )
    format: Literal["rated", "unrated", "prebuilt"] = Field(
        "rated",
        description="rated: text with score columns. unrated: text alone, arms can only sample at random. "
        "prebuilt: subsets that somebody chose already, taken as they are or at random; scores are read where they exist.",
    )
    text_column: str = Field("text", description="The column that holds a document's text.")
    token_count_column: str | None = Field(
        "token_count", description="The column with a document's length in tokens, if any: used for plans and budgets."
    )
    score: dict[str, float] = Field(
        {PEDAGOGICAL: 1.0, FACTUAL: 1.0, ENGAGEMENT: 1.0},
        max_length=64,
        description="Score columns and their weights; the composite is the weighted mean. A document that lacks a column with a "
        "weight above 0 (null, NaN) has no composite. A weight of 0: read where it exists, for a population to ask for.",
    )
    holdout_documents: int = Field(
        20_000, ge=1, description="Documents set aside for evaluation: the same ones for every arm, trained on by none."
    )
    holdout_fraction: float = Field(
        0.02, gt=0, le=0.5, description="The holdout is never more than this part of the pool that it is taken from."
    )
    vocab_size: int = Field(32_768, ge=265, le=65_536, description="Tokens in the vocabulary, 9 special ones included.")
    tokenizer_characters: int = Field(
        2_000_000_000,
        ge=1_000,
        description="Characters of a random sample of the pool that the tokenizer is trained on.",
    )
    seed: int = Field(1337, ge=0, description="Seed of the holdout and of the tokenizer's sample.")
    skip_bad_files: bool = Field(
        False,
        description="Leave out files that are corrupt, empty or lack a column (they are named) instead of stopping.",
    )
    download: Literal["ranged", "bulk"] = how(
        "ranged", description="ranged: read only the needed columns. bulk: copy whole blobs first, with azcopy."
    )

    @model_validator(mode="after")
    def _one_kind_of_source(self) -> "Pool":
        if self.sources and self.source != SOURCE:
            raise ValueError(
                f"source and sources are both given ({self.source}; {', '.join(self.sources)}): give one of them"
            )
        return self

    @model_validator(mode="after")
    def _scores(self) -> "Pool":
        if self.format == "rated" and not any(weight > 0 for weight in self.score.values()):
            raise ValueError("score: a rated pool needs at least one column with a weight above 0")
        if any(weight < 0 for weight in self.score.values()):
            raise ValueError("score: a weight is below 0; give weights of 0 or more")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that determine content: of `source` and `sources` the one that is read."""
        identity = super().identity()
        if self.sources:
            del identity["source"]
        return identity

    @property
    def urls(self) -> dict[str, str]:
        """Where the documents come from, {name of the source: URL} by name; a single source has the name ""."""
        return dict(sorted(self.sources.items())) if self.sources else {"": self.source}

    @property
    def address(self) -> str:
        """Its URLs, for messages."""
        return ", ".join(self.urls.values())

    @property
    def ratings(self) -> tuple[str, ...]:
        """The score columns that a document is ranked by: those of a rated pool with a weight above 0."""
        return tuple(column for column, weight in self.score.items() if weight > 0) if self.format != "unrated" else ()


class Part(Spec):
    """One of the selections that an arm mixes."""

    select: Literal["top", "bottom", "random", "temperature"] = Field(
        "top", description="How the part takes its documents, as of an arm."
    )
    subset: Name | None = Field(
        None, description="Take documents of this source alone, one of the pool's sources. Empty: as the arm says."
    )
    temperature: float = Field(2.0, gt=0, description="Only for select=temperature: higher is closer to random.")
    weight: float = Field(
        1.0, gt=0, description="Its share of the arm's documents, or tokens, against the weights of the other parts."
    )


class Arm(Spec):
    """Which documents of the pool are trained on, and in which order: the one thing in which arms differ."""

    name: Name = Field("top16", description="Readable part of the arm's name.")
    select: Literal["top", "bottom", "random", "temperature", "all", "subset"] = Field(
        "top",
        description="top and bottom by composite score; random; temperature: sampled with weights exp(score / temperature); "
        "all: the whole population; subset: all of one source.",
    )
    subset: Name | None = if_set(
        None, description="Take documents of this source alone, one of the pool's sources, by whatever selection."
    )
    share: float = Field(0.165, gt=0, le=1, description="Part of its population's documents that the arm takes.")
    share_of: Literal["documents", "tokens"] = if_set(
        "documents",
        description="What the share counts. tokens: documents are taken in the order of selection until they hold that part of the "
        "population's tokens, by the pool's token counts.",
    )
    population: tuple[str, ...] | None = Field(
        None,
        description="Score columns in which a document must have a rating to be taken, by whatever selection: arms and their "
        "controls draw from the same documents. Not given: those of a rated pool with a weight above 0. An empty list: every document.",
    )
    unrated: Literal["exclude", "lowest"] = Field(
        "exclude",
        description="Documents without a composite score. exclude: taken by no selection by score. lowest: ranked below all others.",
    )
    tokens: int | None = Field(
        None, ge=1, description="Take documents until they hold this many tokens, instead of a share of the documents."
    )
    documents: int | None = if_set(None, ge=1, description="Take this many documents, instead of a share.")
    parts: tuple[Part, ...] = if_set(
        (),
        max_length=16,
        description="Mix several selections instead of one: the arm is as large as its share says, and each part takes its weight of "
        "that by its own selection. A document that several parts select counts for the first of them, and the others take their next "
        "ones.",
    )
    temperature: float = Field(2.0, gt=0, description="Only for select=temperature: higher is closer to random.")
    order: Literal["best-first", "shuffled", "worst-first"] = Field(
        "best-first", description="The order in which the trainer meets the documents."
    )
    epochs: int = if_set(
        1,
        ge=1,
        le=100,
        description="How often each row that is trained on is read. A shuffled arm is reshuffled each time; the others are read in "
        "their order each time. A budget takes part of the rows, as often.",
    )
    deduplicate: bool = Field(False, description="Keep one of several documents with exactly the same text.")
    documents_per_shard: int = Field(14_000, ge=16, le=1_000_000, description="Documents of one text shard.")
    seed: int = Field(
        42, ge=0, description="Seed of a random or temperature selection, of a shuffled order and of ties."
    )

    @model_validator(mode="after")
    def _subset_is_named(self) -> "Arm":
        if self.select == "subset" and self.subset is None:
            raise ValueError("select is subset, but subset names no source: name one of the pool's sources")
        return self

    @model_validator(mode="after")
    def _one_size(self) -> "Arm":
        if self.tokens is not None and self.documents is not None:
            raise ValueError(f"tokens {self.tokens:,} and documents {self.documents:,} are both given: leave one empty")
        return self

    @property
    def whole(self) -> bool:
        """Whether the selection takes every document that it may take."""
        return self.select in ("all", "subset") and not self.parts

    @property
    def by_score(self) -> bool:
        """Whether the selection depends on scores, and so leaves out documents without one."""
        selections: set[str] = {part.select for part in self.parts} or {self.select}
        return bool(selections & {"top", "bottom", "temperature"}) and self.unrated == "exclude"

    @property
    def sized_by_tokens(self) -> bool:
        """Whether the arm takes documents until they hold so many tokens, or such a share of them."""
        if self.tokens is not None or self.documents is not None:
            return self.tokens is not None
        return self.share_of == "tokens" and not self.whole

    def required_ratings(self, pool: Pool) -> tuple[str, ...]:
        """The score columns in which every document of the arm's population has a rating."""
        if self.population is not None:
            return self.population
        return pool.ratings if pool.format == "rated" and self.unrated == "exclude" else ()


def with_common_population(pool: Pool, arms: Sequence[Arm]) -> list[Arm]:
    """The arms with one population: the documents that have every rating which any of them uses."""
    used = {column for arm in arms for column in arm.required_ratings(pool)}
    if any(arm.by_score for arm in arms):
        used |= set(pool.ratings)
    if len({arm.population for arm in arms}) == 1 and all(set(arm.required_ratings(pool)) == used for arm in arms):
        return list(arms)
    return [arm.model_copy(update={"population": tuple(sorted(used))}) for arm in arms]


Packing = Literal["split", "crop"]
Recipe = Literal["upstream", "quiet"]


class Training(Spec):
    """How an arm is trained: the same for all arms of a comparison. Defaults are nanochat's for depth 20."""

    engine: Literal["builtin", "nanochat"] = Field(
        "builtin", description="builtin: FabRating's trainer. nanochat: upstream's, patched, in its own environment."
    )
    depth: int = Field(20, ge=1, le=64, description="Layers of the model; its width is 64 times as much.")
    sequence_length: int = Field(2_048, ge=16, le=65_536, description="Tokens of one packed row that are trained on.")
    packing: Packing = Field(
        "split",
        description="How documents fill rows. split: one that does not fit goes on in the next row, nothing is lost. crop: nanochat's "
        "best fit, which loses the rest of a document at the end of a row.",
    )
    recipe: Recipe = if_set(
        "upstream",
        description="Constants of the optimizer. upstream: nanochat's. quiet: steps of the residual stream's factors in proportion to "
        "their gradients, so that runs that differ in their seed alone differ less; the same model and checkpoints.",
    )
    window_pattern: str = Field(
        "SSSL",
        pattern=r"^[SL]+$",
        description="Attention windows, tiled over the layers: S a quarter of the sequence, L all of it. The last is always L.",
    )
    batch_tokens: int | None = Field(
        None, ge=1, description="Tokens of one optimizer step; empty: by the scaling rule, from the depth alone."
    )
    tokens: int | None = Field(
        None,
        ge=1,
        description="Budget in trained tokens; empty: every packed row of the arm, as often as its epochs say.",
    )
    tokens_per_parameter: float | None = if_set(
        None,
        gt=0,
        le=10_000,
        description="Budget as trained tokens for each scaling parameter (block matrices and lm_head) instead of a number of tokens: "
        "10.5 is near compute-optimal, nanochat's default is 12.",
    )
    budget_from: Literal["random", "front"] = Field(
        "random",
        description="Which rows a budget below the arm takes. random: a sample drawn by the run's seed. front: the first ones, for a "
        "best-first curriculum that stops early.",
    )
    precision: Literal["bf16", "fp8", "fp32"] = Field(
        "bf16", description="fp8 needs a Hopper GPU or later; a CPU computes in fp32 only."
    )
    eval_every: int = Field(250, ge=1, description="Steps between evaluations on the holdout.")
    micro_batch: int | None = how(None, ge=1, description="Rows of one forward pass on one GPU; empty: as many as fit.")
    save_every: int = how(250, ge=1, description="Steps between checkpoints: the most that a killed run loses.")
    keep_last: int = how(3, ge=1, description="Checkpoints kept.")
    keep_every: int | None = how(None, ge=1, description="Keep a checkpoint of every so many steps for good.")
    gpus: int = how(1, ge=1, le=8, description="GPUs of one host; on a CPU, processes.")
    device: Literal["auto", "cpu", "cuda"] = how("auto", description="auto takes a GPU where there is one.")
    compile: bool = how(True, description="Compile the model (GPU only); turn off to debug.")
    deterministic: bool = how(
        False,
        description="The same bits from the same start on one GPU, and so after a kill: attention by FlexAttention, a little slower. "
        "A CPU always is.",
    )
    wandb: Literal["offline", "online", "disabled"] = how(
        "offline", description="offline runs can be sent later with `wandb sync`; online needs WANDB_API_KEY."
    )
    dollars_per_gpu_hour: float = how(3.0, ge=0, description="For the estimate and the ledger.")

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        if self.tokens is not None and self.tokens_per_parameter is not None:
            raise ValueError(
                f"tokens {self.tokens:,} and tokens_per_parameter {self.tokens_per_parameter:g} are both given: leave one empty"
            )
        return self


class Host(Spec):
    """A machine that is reached by SSH: where its account is, how it is trusted, and what it is to become."""

    name: Name = Field("gpu1", description="Readable name; the worker shows up under it in the work pool.")
    address: str = Field(
        min_length=1, pattern=r"^[^\s@-][^\s@]*$", description="Host name, IP address, or alias of ~/.ssh/config."
    )
    port: int = Field(22, ge=1, le=65_535, description="Port of its SSH server.")
    user: str = Field("root", pattern=r"^[^\s@:-][^\s@:]*$", description="The account that runs the worker.")
    key_file: str | None = Field(
        None,
        description="Private key file on this machine; it stays here. Empty: ssh-agent, then the usual files in ~/.ssh.",
    )
    host_key: str | None = Field(
        None,
        pattern=r"^SHA256:[A-Za-z0-9+/]{43}$",
        description="Fingerprint of the host's key, as `ssh-keygen -lf` shows it. Empty: trust and pin the key seen first.",
    )
    folder: str = Field(
        "fabrating",
        pattern=r"^[^\x00-\x1f]*[^\x00-\x1f/.~ ][^\x00-\x1f]*$",
        description="Everything is installed here: below the home directory, or an absolute path.",
    )
    root: Url | None = Field(
        None, description="Root URL of artifacts as the host sees it; empty: the folder's own `root`, on its disk."
    )
    gpus: int = Field(1, ge=0, le=8, description="GPUs that one run takes; 0 makes it a worker for CPU work.")
    engines: tuple[Literal["builtin", "nanochat"], ...] = Field(
        ("builtin",), description="nanochat adds upstream at its pinned commit, in an environment of its own."
    )
    python_environment: str | None = Field(
        None,
        description="A Python environment that is on the host already, with PyTorch and the other packages: used as it is, "
        "nothing but FabRating itself is added. Empty: made from the lock file.",
    )
    find_links: str | None = Field(
        None,
        description="Folder or URL with wheels that the host takes first, the package index for what is lacking there.",
    )
    torch_index: str | None = Field(
        None,
        description="Package index for PyTorch; empty: the one that has the build for the host's driver, or for none.",
    )
    nanochat_source: str = Field(
        "https://github.com/karpathy/nanochat.git",
        description="Git URL as the host sees it, or a tar archive on this machine that is uploaded.",
    )
    nanochat_commit: str = Field(
        "92d63d4", pattern=r"^[0-9a-f]{7,40}$", description="Commit of nanochat that is checked out on the host."
    )
    way_back: Literal["direct", "tunnel"] = Field(
        "tunnel",
        description="How the worker reaches the server. direct: at its address, by HTTPS. tunnel: through a reverse SSH tunnel "
        "that this machine keeps open.",
    )
    server: str = Field(
        default_factory=lambda: os.environ.get("PREFECT_API_URL", "http://127.0.0.1:4200/api"),
        pattern=r"^https?://[^\s/]+(/[^\s]*)?$",
        description="Prefect API, as the host sees it (direct) or as this machine does (tunnel). Empty: the one that "
        "runs this.",
    )
    tunnel_port: int = Field(4_300, ge=1, le=65_535, description="Port of the tunnel's end on the host's loopback.")
    work_pool: str = Field("gpu", min_length=1, description="Work pool that the worker serves.")
    dollars_per_hour: float = Field(3.0, ge=0, description="Price of the whole host, for the report.")


class Texts(Spec):
    """Documents from elsewhere that finished runs are scored on, beside the holdout of their pool."""

    name: Name = Field("outside", description="Readable part of their name.")
    url: Url = Field(
        description="A folder of .parquet, .jsonl or .txt files: az://container/prefix, file:///folder, or "
        "hf://organisation/dataset. A .txt file is one document. No arm should have trained on them.",
    )
    column: str = Field("text", description="The column of parquet, or the field of JSON lines, that holds a document.")
    documents: int = Field(
        5_000, ge=1, le=1_000_000, description="So many are taken, the first by file name and place."
    )


class Experiment(Spec):
    """One arm from pool to score: what one row of the run ledger is about."""

    pool: Pool = Pool()
    arm: Arm = Arm()
    training: Training = Training()
    seed: int = Field(
        1,
        ge=0,
        description="Seed of a run: its initial weights, the rows of a budget below the arm, the order of a shuffled arm's rows.",
    )
