"""How micro-batches are computed: `Plain`, PyTorch's autograd over the definition in `model.py`, or `Fused` kernels on a GPU.

Both add gradients to the storage's fp32 gradients, and both compute the same function.
"""

import contextlib
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor

from tasks.engines.builtin.distributed import World
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.storage import storage_of
from tasks.errors import InputError
from tasks.progress import Stop, never
from tasks.records.scaling import ModelShape


class Compute(Protocol):
    """What the loop and the evaluation ask of a model."""

    description: str
    """For the log: device, precision, attention backend."""

    def backward(self, tokens: Tensor, targets: Tensor, scale: float) -> Tensor:
        """Add `scale` times the gradient of a micro-batch's mean loss; the loss itself (0-d, detached, no sync) is returned.

        tokens and targets (B, T) of any integer dtype.
        """

    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Nats of each token, (B, T) fp32, without gradients; 0 where the target is -1."""

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T, vocab_size) fp32, without gradients."""

    def state_dict(self) -> dict[str, Tensor]:
        """What must be kept besides weights and optimizer for an exact resume: scales of fp8, else nothing."""

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back `state_dict`."""

    def invalidate(self) -> None:
        """Say that weights were changed by something else than the optimizer."""


class Plain:
    """Autograd over the plain model."""

    def __init__(self, model: GPT, description: str) -> None:
        self.model = model
        self.storage = storage_of(model)
        self.description = description

    def backward(self, tokens: Tensor, targets: Tensor, scale: float) -> Tensor:
        loss = self.model(tokens, targets)
        (loss * scale).backward()
        return loss.detach()

    @torch.no_grad()
    def losses(self, tokens: Tensor, targets: Tensor) -> Tensor:
        return self.model(tokens, targets, reduction="none")

    @torch.no_grad()
    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens)

    def state_dict(self) -> dict[str, Tensor]:
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        if state:
            raise InputError(f"the checkpoint holds fp8 scales ({len(state)}); resume it with precision=fp8")

    def invalidate(self) -> None:
        self.storage.version += 1


def embedding_dtype(precision: str) -> torch.dtype:
    """Of embeddings and activations: what `GPT` is to be built with."""
    return torch.float32 if precision == "fp32" else torch.bfloat16


def check_precision(precision: str, device: torch.device) -> None:
    """Raises InputError when a device cannot compute in a precision."""
    if precision == "fp32":
        return
    if device.type != "cuda":
        raise InputError(f"precision={precision} needs a GPU; on this {device.type} take precision=fp32")
    capability = torch.cuda.get_device_capability(device)
    name = torch.cuda.get_device_name(device)
    if precision == "fp8" and capability < (9, 0):
        raise InputError(f"precision=fp8 needs a Hopper GPU (H100) or later, not {name}; take precision=bf16")
    if capability < (8, 0):
        raise InputError(f"precision=bf16 needs an Ampere GPU (A100) or later, not {name}; take precision=fp32")


def check_tokens(precision: str, micro_batch: int, sequence_length: int) -> None:
    """Raises InputError when the products of a micro-batch have no form in a precision: fp8's sums have a multiple of 16 terms."""
    if precision == "fp8" and micro_batch * sequence_length % 16:
        raise InputError(
            f"precision=fp8 needs a multiple of 16 tokens at a time, not micro_batch {micro_batch} x sequence_length "
            f"{sequence_length}: take a sequence_length that is a multiple of 16, or precision=bf16"
        )


def fusable(config: ModelShape) -> bool:
    """Have the kernels a form for this model?"""
    return config.n_layer > 2 and config.n_kv_head == config.n_head


@contextlib.contextmanager
def compile_ahead(
    config: ModelShape, precision: str, kernels: bool, world: World, stop: Stop = never
) -> Iterator[None]:
    """Have all that training a model by `build_compute` needs compiled at the end of the block, which does other things meanwhile."""
    if world.device.type != "cuda" or precision == "fp32" or not kernels or not fusable(config):
        yield
        return
    from tasks.engines.builtin.ahead import compiling
    from tasks.engines.builtin.rehearsal import rehearse

    with compiling(config, precision, world, lambda: rehearse(config, precision), stop):
        yield


def build_compute(
    model: GPT, precision: str, kernels: bool = True, deterministic: bool = False, attention: str = "auto"
) -> Compute:
    """The way to compute a model that is on its device already. `kernels=False`: autograd on a GPU too, to debug.

    `deterministic`: the same bits every time; `attention`: as `choose_backend` has it. Raises InputError when the device cannot
    compute in `precision` ("fp32", "bf16", "fp8"), or so.
    """
    device = model.lm_head.weight.device
    check_precision(precision, device)
    fused = kernels and fusable(model.config)
    if precision == "fp8" and not fused:
        raise InputError(
            "precision=fp8 has no autograd form: it needs kernels, 3 layers or more and as many key as query heads"
        )
    if device.type == "cuda" and precision != "fp32" and fused:
        from tasks.engines.builtin.fused import Fused  # needs Triton, which PyTorch for CPUs does not bring

        return Fused(model, precision, deterministic, attention)
    if deterministic and device.type == "cuda":
        raise InputError(
            "deterministic is true, but on a GPU autograd adds in any order: take precision=bf16 or fp8, compile=true, 3 "
            "layers or more and as many key as query heads."
        )
    if attention != "auto":
        raise InputError(
            f"attention is {attention}, but this model is computed by autograd: take attention=auto, or a GPU, precision=bf16 or fp8, "
            "compile=true and 3 layers or more."
        )
    return Plain(model, f"{device.type}, {precision}, autograd, PyTorch attention")
