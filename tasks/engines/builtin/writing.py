"""Text that a model writes after a prompt, token by token: each is drawn from what the model expects next."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tasks.engines.builtin.compute import check_precision, embedding_dtype
from tasks.engines.builtin.model import GPT, Memory
from tasks.engines.trained import Trained
from tasks.errors import InputError

HOTTEST = 10.0


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. Raises InputError for a value out of bounds.

    `temperature`: logits are divided by it; 0 takes the likeliest token. `top_k`: of so many likeliest ones alone. `top_p`: of the
    fewest likeliest ones that together have this probability (arXiv 1904.09751).
    """

    temperature: float = 0.8
    top_k: int | None = None
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature <= HOTTEST:
            raise InputError(f"The temperature is {self.temperature:g}: give 0 (the likeliest token) to {HOTTEST:g}.")
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k is {self.top_k}: give a number of tokens, 1 or more, or leave it out.")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p:g}: give a probability above 0 and at most 1.")

    def draw(self, logits: torch.Tensor, generator: torch.Generator) -> int:
        """A token, given the logits (vocab_size,) of all; drawn on the CPU in fp32."""
        logits = logits.float().cpu()
        if self.temperature == 0:
            return int(logits.argmax())
        ordered, tokens = (logits / self.temperature).sort(descending=True, stable=True)
        probabilities = ordered[: self.top_k].softmax(-1)
        before = probabilities.cumsum(-1) - probabilities
        kept = probabilities * (before < self.top_p)
        return int(tokens[torch.multinomial(kept, 1, generator=generator)])


def load_model(trained: Trained, device: torch.device) -> GPT:
    """The model of a run with its weights, to be used. On a CPU in fp32, on a GPU as it was trained (fp8 as bf16)."""
    precision = trained.job.experiment.training.precision
    precision = "fp32" if device.type == "cpu" or precision == "fp32" else "bf16"
    check_precision(precision, device)
    model = GPT(trained.shape, embedding_dtype(precision))
    model.load_state_dict(trained.state())
    return model.to(device).eval().requires_grad_(False)


def write(
    model: GPT, prompt: Sequence[int], tokens: int, sampling: Sampling, seed: int, end: int, banned: Sequence[int]
) -> Iterator[int]:
    """Tokens that follow `prompt`, at most so many, until the model writes `end`, which is not given out.

    `prompt` begins with BOS, as every document did; `banned` tokens are never written. Raises InputError when prompt and tokens
    together are more than the model was trained to read.
    """
    if len(prompt) + tokens > model.config.sequence_len:
        raise InputError(
            f"{len(prompt):,} tokens of prompt, its beginning mark included, and {tokens:,} to write are more than the "
            f"{model.config.sequence_len:,} that the model was trained to read: ask for at most {max(0, model.config.sequence_len - len(prompt)):,}."
        )
    return _write(model, prompt, tokens, sampling, seed, end, list(banned))


@torch.inference_mode()
def _write(
    model: GPT, prompt: Sequence[int], tokens: int, sampling: Sampling, seed: int, end: int, banned: list[int]
) -> Iterator[int]:
    device, memory = model.lm_head.weight.device, Memory()
    generator = torch.Generator().manual_seed(seed)
    new = torch.tensor([list(prompt)], device=device)
    for _ in range(tokens):
        logits = model.head(model.trunk(new, memory)[:, -1])[0]
        logits[banned] = -torch.inf
        token = sampling.draw(logits, generator)
        if token == end:
            return
        yield token
        new = torch.tensor([[token]], device=device)
