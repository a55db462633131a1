"""The optimizer: Muon for the matrices inside the blocks, AdamW for embeddings, output matrix and scalars.

Every parameter has one owner among the ranks. In the last backward pass of a step each gradient is summed into its owner as
soon as it is complete; the owner updates and sends the parameter to all. State lives at the owner only, in whole tensors, so a
checkpoint does not depend on the number of ranks. The arithmetic itself is in `muon.py` and `adamw.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tasks.engines.builtin.adamw import EPSILON, AdamW, adamw_rates, adamw_step
from tasks.engines.builtin.graphs import Replayed, replayable
from tasks.engines.builtin.model import GPT
from tasks.engines.builtin.muon import muon_rates, muon_step, second_moment_shape
from tasks.engines.builtin.storage import Stack, storage_of
from tasks.errors import InputError
from tasks.records.scaling import TrainingPlan
from tasks.spec import Recipe

MATRIX_LR = 0.02
MUON_BETA2 = 0.9
RATES = 4
"""Numbers of a parameter's row among the rates on a GPU: three, 16 bytes apart, so that kernels are compiled for one alignment."""
REFERENCE_WIDTH = 768
"""Width for which the rates of embeddings and output matrix were tuned: they scale with (width / 768)^-0.5."""


SCALARS = ("resid_lambdas", "x0_lambdas", "smear_gate.weight", "smear_lambda", "backout_lambda")
"""Parameters of one number or a few. The loss hardly depends on the scale of the residual stream, and at the start not at all: all
layers give zero then, so x is a multiple of x0. The gradients of the mixing factors (resid, x0, backout) are sums of large terms that
cancel, and in bf16 rounding is all that is left in the first steps (benchmarks/verdict/noise.md)."""

SCALAR_EPSILON: dict[Recipe, float] = {"upstream": EPSILON, "quiet": 0.1}
"""Adam's epsilon for SCALARS. A gradient well below it gives a step in proportion to it instead of a full one."""


def adamw_groups(model: GPT, lr_scale: float, recipe: Recipe = "upstream") -> dict[str, AdamW]:
    """Constants of every parameter outside of the blocks, by name. `lr_scale` is the plan's, for the batch size."""
    width = (model.config.n_embd / REFERENCE_WIDTH) ** -0.5 * lr_scale
    groups = {
        "lm_head.weight": AdamW(0.008 * width, 0.8, 0.96, 0.01),
        "transformer.wte.weight": AdamW(0.3 * width, 0.8, 0.995, 0.001),
        "resid_lambdas": AdamW(0.005 * lr_scale, 0.8, 0.95, 0.05),
        "x0_lambdas": AdamW(0.5 * lr_scale, 0.96, 0.95, 0.0),
    }
    for name in ("smear_gate.weight", "smear_lambda", "backout_lambda"):
        groups[name] = AdamW(0.2, 0.8, 0.95, 0.0)  # upstream scales these with neither width nor batch
    for layer in model.value_embeds:
        groups[f"value_embeds.{layer}.weight"] = AdamW(0.15 * width, 0.8, 0.995, 0.01)
    return {n: g._replace(epsilon=SCALAR_EPSILON[recipe]) if n in SCALARS else g for n, g in groups.items()}


@dataclass
class _Muon:
    """A rank's part [first, last) of a stack, with its state."""

    stack: Stack
    bounds: list[int]
    """Rank r owns the matrices bounds[r] to bounds[r + 1] of the stack."""
    first: int
    last: int
    momentum: Tensor
    second: Tensor


class Optimizer:
    """Steps a model. Gradients are those of its storage; `zero_grad` before the first micro-batch of a step."""

    def __init__(self, model: GPT, plan: TrainingPlan, recipe: Recipe = "upstream") -> None:
        distributed = dist.is_available() and dist.is_initialized()
        self.rank, self.world = (dist.get_rank(), dist.get_world_size()) if distributed else (0, 1)
        self.storage = storage_of(model)
        self.steps = 0
        self.matrix_lr = MATRIX_LR * plan.lr_scale
        self.orthogonalize_in = torch.bfloat16 if model.dtype == torch.bfloat16 else torch.float32
        self.groups = adamw_groups(model, plan.lr_scale, recipe)
        self.owner: dict[nn.Parameter, int] = {}
        self.muon = [self._share(stack) for stack in self.storage.stacks]
        self._share_others()
        self.moments = {
            name: (torch.zeros_like(parameter), torch.zeros_like(parameter))
            for name, parameter in self.storage.others.items()
            if self.owner[parameter] == self.rank
        }
        self._reducing = False
        self._reductions: dict[nn.Parameter, dist.Work] = {}
        self._rates: Tensor | None = None
        self.graphed = replayable(model)
        self._replayed = Replayed(lambda: self._update_all(self._rates))
        device = model.lm_head.weight.device
        if device.type != "cpu":
            self._rates = torch.zeros(len(self.moments) + len(self.muon), RATES, device=device)
        if self.world > 1:
            self.storage.on_ready = self._ready

    def _share(self, stack: Stack) -> _Muon:
        """Equal runs of neighbours for every rank."""
        count = len(stack.parameters)
        bounds = [count * rank // self.world for rank in range(self.world + 1)]
        for rank in range(self.world):
            for parameter in stack.parameters[bounds[rank] : bounds[rank + 1]]:
                self.owner[parameter] = rank
        first, last = bounds[self.rank], bounds[self.rank + 1]
        _, rows, columns = stack.data.shape
        second = second_moment_shape(last - first, rows, columns)
        return _Muon(
            stack,
            bounds,
            first,
            last,
            torch.zeros_like(stack.data[first:last]),
            torch.zeros(second, dtype=stack.data.dtype, device=stack.data.device),
        )

    def _share_others(self) -> None:
        """Largest first, each to the rank that holds least so far."""
        held = [0] * self.world
        for parameter in sorted(self.storage.others.values(), key=lambda p: -p.numel()):
            rank = held.index(min(held))
            self.owner[parameter] = rank
            held[rank] += parameter.numel()

    def zero_grad(self) -> None:
        self.storage.zero_grads()

    def start_reduce(self) -> None:
        """From here on every gradient that gets complete is on its way to its owner. Call before the last micro-batch of a step."""
        self._reducing = self.world > 1

    def _ready(self, parameter: nn.Parameter) -> None:
        if self._reducing and parameter not in self._reductions:
            gradient = self.storage.grads[parameter]
            self._reductions[parameter] = dist.reduce(gradient, self.owner[parameter], async_op=True)

    def _finish_reduce(self) -> None:
        self._reducing = self.world > 1
        for parameter in self.storage.grads:
            self._ready(parameter)
        for work in self._reductions.values():
            work.wait()
        self._reducing = False
        self._reductions.clear()

    @torch.no_grad()
    def step(self, lr_scale: float, momentum: float, weight_decay: float) -> None:
        """One update of all parameters by the gradients' sum over the ranks.

        Args: `lr_scale` of all learning rates (`schedule`), `momentum` and `weight_decay` of Muon.
        """
        self._finish_reduce()
        self.steps += 1
        rates: list[tuple[float, ...]] = [adamw_rates(self.groups[n], lr_scale, self.steps) for n in self.moments]
        for part in self.muon:
            shape = part.stack.data.shape[1:]
            rates.append(muon_rates(*shape, self.matrix_lr * lr_scale, momentum, weight_decay))
        if self._rates is None:
            self._update_all(rates)
        else:
            padded = torch.tensor([[*row, *[0.0] * (RATES - len(row))] for row in rates])
            self._rates.copy_(padded, non_blocking=True)
            if self.graphed:
                self._replayed()
            else:
                self._update_all(self._rates)
        self.storage.version += 1

    def _update_all(self, rates: Sequence[Sequence[float]] | Tensor) -> None:
        """Update what this rank owns and send it to the others. `rates`: a row for each AdamW parameter, then for each stack."""
        sends, place = [], iter(range(len(rates)))
        for name, parameter in self.storage.others.items():
            if name in self.moments:
                gradient = self.storage.grads[parameter]
                adamw_step(parameter, gradient, *self.moments[name], self.groups[name], rates[next(place)])
            if self.world > 1:
                sends.append(dist.broadcast(parameter.data, self.owner[parameter], async_op=True))
        for part in self.muon:
            own, row = slice(part.first, part.last), rates[next(place)]
            if part.last > part.first:
                muon_step(
                    part.stack.data[own],
                    part.stack.grad[own],
                    part.momentum,
                    part.second,
                    rates=row,
                    beta2=MUON_BETA2,
                    dtype=self.orthogonalize_in,
                )
            for rank in range(self.world if self.world > 1 else 0):
                piece = part.stack.data[part.bounds[rank] : part.bounds[rank + 1]]
                if len(piece):
                    sends.append(dist.broadcast(piece, rank, async_op=True))
        for work in sends:
            work.wait()

    def local_state(self) -> dict[str, Tensor]:
        """What this rank owns, live: "<slot>/<parameter name>" -> tensor, and on rank 0 the number of steps as "step"."""
        state = {"step": torch.tensor(self.steps)} if self.rank == 0 else {}
        for part in self.muon:
            for place, name in enumerate(part.stack.names[part.first : part.last]):
                state[f"momentum/{name}"] = part.momentum[place]
                state[f"second/{name}"] = part.second[place]
        for name, (first, second) in self.moments.items():
            state[f"exp_avg/{name}"] = first
            state[f"exp_avg_sq/{name}"] = second
        return state

    @torch.no_grad()
    def load_state(self, pieces: dict[str, Tensor]) -> None:
        """Take this rank's part of the union of all ranks' `local_state`, from whatever number of ranks.

        Raises InputError when a tensor is missing or of another shape.
        """
        for key, tensor in self.local_state().items():
            if key not in pieces:
                raise InputError(f"the optimizer state lacks {key}: take a checkpoint of the same model")
            if pieces[key].shape != tensor.shape:
                raise InputError(
                    f"the optimizer state's {key} has shape {tuple(pieces[key].shape)}, not {tuple(tensor.shape)}: "
                    "take a checkpoint of the same model"
                )
            if key != "step":
                tensor.copy_(pieces[key])
        if "step" not in pieces:
            raise InputError("the optimizer state lacks step: take a checkpoint of the same model")
        self.steps = int(pieces["step"])


def build_optimizer(model: GPT, plan: TrainingPlan, recipe: Recipe = "upstream") -> Optimizer:
    """The optimizer of a model on its device, for this rank of the default process group, if there is one."""
    return Optimizer(model, plan, recipe)
