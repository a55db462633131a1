"""How an arm is trained."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from tasks.spec.base import Cores, Count, Dollars, Shape, Spec, Steps, how, if_set, whole_number

Packing = Literal["split", "crop"]
Recipe = Literal["upstream", "quiet"]
Attention = Literal["auto", "fa3", "fa4", "cudnn"]
MEASURED = "FABRATING_ATTENTION"
"""The variable that says to trainings which attention was taken when their host was provisioned: fa3, fa4 or cudnn."""
Depth = Annotated[int, Field(ge=1, le=64)]


class Training(Spec):
    """How an arm is trained: the same for all arms of a comparison. Defaults are nanochat's for depth 20."""

    depth: Depth = Field(20, description="Layers of the model; its width is 64 times as much.")
    tokens: Count | None = Field(
        None,
        description="Budget in trained tokens, such as 2000000000, 2e9 or 2B; empty: every packed row of the arm, as often as its epochs say.",
    )
    tokens_per_parameter: float | None = if_set(
        None,
        gt=0,
        le=10_000,
        description="Budget as trained tokens for each scaling parameter (block matrices and lm_head) instead of a number of tokens: "
        "10.5 is near compute-optimal, nanochat's default is 12.",
    )
    sequence_length: int = Field(2_048, ge=16, le=65_536, description="Tokens of one packed row that are trained on.")
    batch_tokens: Annotated[int, Field(ge=1, le=2**30), BeforeValidator(whole_number)] | None = Field(
        None,
        description="Tokens of one optimizer step; empty: by the scaling rule, from the depth alone.",
    )
    recipe: Recipe = if_set(
        "upstream",
        description="Constants of the optimizer. upstream: nanochat's. quiet: steps of the residual stream's factors in proportion to "
        "their gradients, so that runs that differ in their seed alone differ less; the same model and checkpoints.",
    )
    precision: Literal["bf16", "fp8", "fp32"] = Field(
        "bf16", description="fp8 needs a Hopper GPU or later; a CPU computes in fp32 only."
    )
    engine: Literal["builtin", "nanochat"] = Field(
        "builtin", description="builtin: FabRating's trainer. nanochat: upstream's, patched, in its own environment."
    )
    gpus: int = how(1, ge=1, le=8, description="GPUs of one host; on a CPU, processes.")
    device: Literal["auto", "cpu", "cuda"] = how("auto", description="auto takes a GPU where there is one.")
    packing: Packing = Field(
        "split",
        description="How documents fill rows. split: one that does not fit goes on in the next row, nothing is lost. crop: nanochat's "
        "best fit, which loses the rest of a document at the end of a row.",
    )
    window_pattern: Annotated[str, Shape(r"[SL]{1,64}", "a pattern of at most 64 letters S and L")] = Field(
        "SSSL",
        description="Attention windows, tiled over the layers: S a quarter of the sequence, L all of it. The last is always L.",
    )
    budget_from: Literal["random", "front"] = Field(
        "random",
        description="Which rows a budget below the arm takes. random: a sample drawn by the run's seed. front: the first ones, for a "
        "best-first curriculum that stops early.",
    )
    eval_every: Steps = Field(250, description="Steps between evaluations on the holdout.")
    micro_batch: int | None = how(
        None, ge=1, le=2**20, description="Rows of one forward pass on one GPU; empty: as many as fit."
    )
    save_every: Steps = how(250, description="Steps between checkpoints: the most that a killed run loses.")
    keep_last: Steps = how(3, description="Checkpoints kept.")
    keep_every: Steps | None = how(None, description="Keep a checkpoint of every so many steps for good.")
    compile: bool = how(True, description="Compile the model (GPU only); turn off to debug.")
    deterministic: bool = how(
        False,
        description="The same bits from the same start on one GPU, and so after a kill: attention sums in one order, a little slower. "
        "A CPU always is.",
    )
    attention: Attention = how(
        "auto",
        description="What computes attention on a GPU. auto: what provisioning took on the host, else cuDNN. fa3, fa4: Flash "
        "Attention 3 or 4, refused where it is not installed. Runs of a comparison never mix them.",
    )
    wandb: Literal["auto", "online", "offline", "disabled"] = how(
        "auto",
        description="auto: online where there is a key, else offline. Offline runs can be sent later with `wandb sync`.",
    )
    workers: Cores | None = how(
        None,
        description="Cores that a training on a CPU takes, all of its processes together. Empty: FABRATING_WORKERS, else all.",
    )
    dollars_per_gpu_hour: Dollars = how(3.0, description="For the estimate and the ledger.")

    @model_validator(mode="after")
    def _one_budget(self) -> "Training":
        if self.tokens is not None and self.tokens_per_parameter is not None:
            raise ValueError(
                f"tokens {self.tokens:,} and tokens_per_parameter {self.tokens_per_parameter:g} are both given: leave one empty"
            )
        return self

    def on(self, tokens: int | None) -> "Training":
        """The same training on a budget of so many tokens; None: without a budget."""
        return self.model_copy(update={"tokens": tokens, "tokens_per_parameter": None})
