"""What kernels are made for: the GPU of a tensor, or on the meta device, where tensors have no contents, one that is described."""

import functools
from typing import NamedTuple

import torch


class Chip(NamedTuple):
    capability: tuple[int, int]
    processors: int


NONE = Chip((0, 0), 4)
"""A CPU, where Triton's interpreter runs kernels for tests."""
_described: list[Chip] = []


def describe(chip: Chip) -> None:
    """Say for what kernels are made on the meta device from now on."""
    _described[:] = [chip]


def chip_of(device: torch.device) -> Chip:
    """Of a device. Raises IndexError on the meta device before `describe`."""
    return _described[0] if device.type == "meta" else _real(device)


@functools.cache
def _real(device: torch.device) -> Chip:
    if device.type != "cuda":
        return NONE
    found = torch.cuda.get_device_properties(device)
    return Chip((found.major, found.minor), found.multi_processor_count)
