"""One process per GPU: who this process is, and how the processes agree.

Works under torchrun and under `ranks` (RANK, WORLD_SIZE, LOCAL_RANK in the environment). On a CPU the same code runs over
gloo.
"""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from tasks.cores import cores
from tasks.engines.ranks import is_rank
from tasks.errors import InputError

COLLECTIVE_TIMEOUT = timedelta(minutes=15)


@dataclass(frozen=True)
class World:
    """This process among its equals. `control` is a gloo group: agreeing over it asks for no GPU synchronization."""

    rank: int
    size: int
    device: torch.device
    control: Any = None

    @property
    def leads(self) -> bool:
        """Rank 0 writes what is written once."""
        return self.rank == 0

    def any(self, flag: bool) -> bool:
        """True on every rank when it is true on one."""
        if self.size == 1:
            return flag
        shared = torch.tensor([int(flag)])
        dist.all_reduce(shared, dist.ReduceOp.MAX, group=self.control)
        return bool(shared.item())

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The elementwise sum over ranks, in place, on the tensor's own device."""
        if self.size > 1:
            dist.all_reduce(tensor, group=self.control if tensor.device.type == "cpu" else None)
        return tensor

    def share(self, value: Any) -> Any:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=self.control)
        return box[0]

    def barrier(self) -> None:
        """Wait for every rank."""
        if self.size > 1:
            dist.barrier(group=self.control)


def join(device: str) -> World:
    """Become the rank that the launcher's environment names, or else a world of one. `device`: auto, cpu or cuda.

    Raises InputError when a GPU is asked for that is not there.
    """
    rank, size, local = 0, 1, 0
    if is_rank():
        rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local = int(os.environ.get("LOCAL_RANK", rank))
    found = torch.cuda.device_count() if device != "cpu" else 0
    if device == "cuda" and found == 0:
        raise InputError(
            "device is cuda, but PyTorch finds no GPU here: use device=cpu, or check the driver and torch."
        )
    if found:
        if local >= found:
            raise InputError(f"gpus is {size}, but this host has {found}: set training.gpus to {found} or fewer.")
        torch.cuda.set_device(local)
        own = torch.device("cuda", local)
    else:
        own = torch.device("cpu")
        torch.set_num_threads(asked_threads() or max(1, cores() // size))
    if size == 1:
        return World(0, 1, own)
    dist.init_process_group("nccl" if found else "gloo", timeout=COLLECTIVE_TIMEOUT, device_id=own if found else None)
    control = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if found else dist.group.WORLD
    return World(rank, size, own, control)


def leave() -> None:
    """Take the process groups down, if there are any."""
    if dist.is_initialized():
        dist.destroy_process_group()


def asked_threads() -> int:
    """Threads that OMP_NUM_THREADS asks for; 0 if it asks for none: unset, empty, or nothing that OpenMP takes.

    A list is one number a level of nesting (OpenMP 5.2, 21.1.2): the first one counts.
    """
    first = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(first) if first.isdecimal() else 0
