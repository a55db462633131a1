"""Where parameters and gradients live: matrices of one shape in one stack, every gradient in fp32.

Muon works on stacks of equal matrices, and neighbours in a stack can be one product (queries, keys and values). So the
parameters of a model become views of a few large tensors, and so do their gradients; names, shapes and `state_dict` stay.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tasks.engines.builtin.model import GPT


@dataclass
class Stack:
    """The K parameters of one shape (m, n) inside the blocks, in the model's order."""

    names: list[str]
    parameters: list[nn.Parameter]
    data: Tensor
    """(K, m, n): the parameters are views of it."""
    grad: Tensor
    """(K, m, n) fp32."""


@dataclass
class Storage:
    """Stacks of matrices, the other parameters by name, and the fp32 gradient of every parameter."""

    stacks: list[Stack]
    others: dict[str, nn.Parameter]
    grads: dict[nn.Parameter, Tensor]
    names: dict[nn.Parameter, str]
    version: int = 0
    """Goes up when parameters change: tells holders of low-precision copies that theirs are old."""
    on_ready: Callable[[nn.Parameter], None] | None = field(default=None, repr=False)
    """Called in the backward pass when a parameter's gradient is complete."""

    def ready(self, parameter: nn.Parameter) -> None:
        if self.on_ready is not None:
            self.on_ready(parameter)

    def zero_grads(self) -> None:
        torch._foreach_zero_([stack.grad for stack in self.stacks] + [self.grads[p] for p in self.others.values()])


def storage_of(model: GPT) -> Storage:
    """The storage of a model on its device, made at the first call. The model may not change device afterwards."""
    existing = getattr(model, "_storage", None)
    if existing is not None:
        return existing
    inside = {id(parameter) for parameter in model.transformer["h"].parameters()}
    by_shape: dict[torch.Size, list[tuple[str, nn.Parameter]]] = {}
    others: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        if id(parameter) in inside:
            by_shape.setdefault(parameter.shape, []).append((name, parameter))
        else:
            others[name] = parameter
    grads: dict[nn.Parameter, Tensor] = {}
    stacks = []
    for shape in sorted(by_shape):
        names, parameters = map(list, zip(*by_shape[shape], strict=True))
        data = torch.empty(len(names), *shape, dtype=parameters[0].dtype, device=parameters[0].device)
        for place, parameter in zip(data, parameters, strict=True):
            place.copy_(parameter.detach())
        grad = torch.zeros_like(data, dtype=torch.float32)
        for parameter, values, gradient in zip(parameters, data, grad, strict=True):
            parameter.data = values
            grads[parameter] = gradient
        stacks.append(Stack(names, parameters, data, grad))
    for parameter in others.values():
        grads[parameter] = torch.zeros_like(parameter, dtype=torch.float32)
    names_of = {parameter: name for name, parameter in model.named_parameters()}
    storage = Storage(stacks, others, grads, names_of)
    for parameter in grads:
        parameter.register_post_accumulate_grad_hook(_collect(storage))
    object.__setattr__(model, "_storage", storage)
    return storage


def _collect(storage: Storage) -> Callable[[nn.Parameter], None]:
    """Autograd's gradient of a parameter goes into the storage's fp32 gradient at once."""

    def collect(parameter: nn.Parameter) -> None:
        storage.grads[parameter].add_(parameter.grad)
        parameter.grad = None
        storage.ready(parameter)

    return collect
