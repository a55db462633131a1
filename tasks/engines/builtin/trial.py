"""`python -m tasks.engines.builtin.trial ASKED`: which way to compute attention shall this GPU take? Prints a line of JSON.

    {"taken": "cudnn", "milliseconds": {"cudnn": 1.48, "fa4": 1.44}, "seconds": {"cudnn": 0.2, "fa4": 16.3},
     "left": ["Flash Attention 3 is not available (...)"]}

Forward and backward are timed in turn, full and with the default's window; seconds: until the first results, imports and compilation
included. Flash Attention is taken when it is faster by more than the measurement's own error and so saves more of a training than it takes to
start; with ASKED fa3, fa4 or cudnn, that one. Exit status 65: it is not there, or gives the wrong result.
"""

import json
import statistics
import sys
import time

import torch
from torch import Tensor

from tasks.engines.builtin.attention import FLASH, Attend, NoAttentionError, attend_backward, choose_backend
from tasks.errors import InputError
from tasks.records.job import INPUT

ROWS, LENGTH, HEADS, WIDTH = 16, 2048, 6, 128
"""Of the case: a micro-batch of d12."""
WINDOWS = {LENGTH: 1, LENGTH // 4: 3}
"""How often each window occurs in SSSL."""
ROUNDS = 20
MARGIN = 0.98
"""The part of cuDNN's time that another must stay below."""
TRAINING, SHARE = 900.0, 1 / 6
"""Seconds of a training whose length decides, and the part of them that is attention (benchmarks/training/README.md)."""


def milliseconds(ways: dict[str, Attend], window: int) -> dict[str, float]:
    """Of forward and backward, the median of several rounds in turn."""
    packed, d_y = (
        torch.randn(ROWS, LENGTH, *shape, WIDTH, device="cuda").bfloat16() for shape in ((3, HEADS), (HEADS,))
    )
    inputs = tuple(part.detach().requires_grad_() for part in packed.unbind(2))
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(ROUNDS + 2):
        for name, attend in ways.items():
            found[name].append(_once(attend, inputs, d_y, window))
    return {name: statistics.median(times[2:]) for name, times in found.items()}  # the first ones compile


def _once(attend: Attend, inputs: tuple[Tensor, ...], d_y: Tensor, window: int) -> float:
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    attend_backward(attend(*inputs, window), inputs, d_y)
    end.record()
    end.synchronize()
    return begin.elapsed_time(end)


def fastest(times: dict[str, float], starts: dict[str, float]) -> str:
    """The name to take, by milliseconds and by seconds of a start: cuDNN's, unless a training is clearly shorter with another."""
    if "cudnn" not in times or len(times) == 1:  # one alone is not timed
        return min(times, key=lambda name: times[name])

    def whole(name: str) -> float:
        return starts[name] + TRAINING * SHARE * times[name] / times["cudnn"]

    return min((name for name in times if name == "cudnn" or times[name] < MARGIN * times["cudnn"]), key=whole)


def trial(asked: str) -> dict[str, object]:
    """Measure what may be taken. Raises NoAttentionError where what is asked for is not there, or wrong."""
    device = torch.device("cuda", torch.cuda.current_device())
    ways: dict[str, Attend] = {}
    starts, left = dict[str, float](), list[str]()
    torch.zeros(1, device=device)  # PyTorch's own start is nobody's
    for name in (*FLASH, "cudnn") if asked == "auto" else (asked,):
        began = time.monotonic()
        try:
            ways[name], _ = choose_backend(frozenset(WINDOWS), LENGTH, WIDTH, device, asked=name)
        except NoAttentionError as error:
            if asked != "auto":
                raise
            left.append(error.reason)
        starts[name] = time.monotonic() - began
    times = dict.fromkeys(ways, 0.0)
    for window, count in WINDOWS.items() if len(ways) > 1 else ():
        for name, each in milliseconds(ways, window).items():
            times[name] += each * count / sum(WINDOWS.values())
    seconds = {name: starts[name] for name in ways}
    return {"taken": fastest(times, seconds), "milliseconds": times, "seconds": seconds, "left": left}


if __name__ == "__main__":
    try:
        print(json.dumps(trial(sys.argv[1])))
    except InputError as error:
        print(error, file=sys.stderr)
        sys.exit(INPUT)
