"""Where a step's time goes, by what the GPU's kernels are for."""

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

CLASSES = (
    ("attention", ("sdpa", "cudnn", "flash", "flex", "fmha")),
    ("loss", ("_cross_entropy",)),
    ("products", ("_product", "nvjet", "gemm", "cutlass", "xmma", "splitK")),
    ("fp8 casts and transposes", ("_quantize", "_transpose")),
    ("norms and residuals", ("_mix_norm", "_norm_backward", "_weigh", "_embed")),
    ("rotary, head norms, value embeddings", ("_heads", "_pieces")),
)
OTHER = "copies, sums and the rest"


def kind_of(kernel: str) -> str:
    """The class of a kernel's name."""
    for kind, parts in CLASSES:
        if any(part in kernel for part in parts):
            return kind
    return OTHER


def _milliseconds(work: Callable[[], object]) -> dict[str, float]:
    """GPU time of one call by class, after one to warm up."""
    work()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as recorded:
        work()
        torch.cuda.synchronize()
    times: dict[str, float] = {}
    for event in recorded.key_averages():
        kind = kind_of(event.key)
        times[kind] = times.get(kind, 0.0) + event.self_device_time_total / 1e3
    return times


def table(
    micro_batch: Callable[[], object],
    accumulation: int,
    optimizer: object,
    rates: tuple[float, float, float],
    step_seconds: float,
) -> dict[str, float]:
    """Milliseconds of a whole step by class; "waiting" is what the measured step takes beyond its kernels."""
    times = {kind: accumulation * value for kind, value in _milliseconds(micro_batch).items()}
    of_optimizer = _milliseconds(lambda: optimizer.step(*rates))
    times["optimizer, products"] = of_optimizer.pop("products", 0.0)
    times["optimizer, the rest"] = sum(of_optimizer.values())
    times["waiting, and clocks lower than when profiled"] = step_seconds * 1e3 - sum(times.values())
    return dict(sorted(times.items(), key=lambda item: -item[1]))
