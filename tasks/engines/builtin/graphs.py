"""CUDA graphs: work that is the same every time, recorded once and replayed without Python.

A small model's step is hundreds of kernels of a few microseconds, which Python cannot start as fast as the GPU ends them. A graph
replays them as they were: the same kernels at the same addresses in the same order, so the same bits.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from tasks.engines.builtin.model import GPT
from tasks.records.scaling import ModelShape

Result = TypeVar("Result")
LAYERS = 12
"""Up to this depth: the graphs of a deeper model's optimizer would hold gigabytes of their own."""
WORK = 2**25
"""Tokens x channels of a micro-batch up to which Python is slower than an H200; at twice as many a step gains less than 1 %."""


def small(config: ModelShape, tokens: int) -> bool:
    """Is a micro-batch of so many tokens worth a graph?"""
    return config.n_layer <= LAYERS and tokens * config.n_embd <= WORK


def replayable(model: GPT) -> bool:
    """Can a model's steps be replayed? On one GPU only: between several, sums are on their way while others are computed."""
    alone = not (dist.is_available() and dist.is_initialized())
    return alone and model.lm_head.weight.is_cuda and model.config.n_layer <= LAYERS


class Replayed(Generic[Result]):
    """`work` on one CUDA stream: done as it is the first time, which compiles and sets up, recorded at the second, then replayed.

    `work` must not wait for the GPU, and read nothing but its arguments (tensors, copied to a place of their own) that changes from
    call to call, unless in place. What it returns is overwritten by the next call.
    """

    def __init__(self, work: Callable[..., Result]) -> None:
        self._work = work
        self._tried = False
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._result: Result

    def __call__(self, *inputs: Tensor) -> Result:
        if not self._tried:
            self._tried = True
            return self._work(*inputs)
        if self._graph is None:
            self._inputs = tuple(tensor.clone() for tensor in inputs)
            self._graph = torch.cuda.CUDAGraph()
            # threads that prepare rows and checkpoints pin memory meanwhile, which a capture of the whole process forbids
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._result = self._work(*self._inputs)
        for place, tensor in zip(self._inputs, inputs, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        return self._result
