"""GPUs by the names that their drivers give them, and how many runs a host takes for those that it has."""

WAITING = 2
"""Runs that a worker accepts beyond those that train: a run of a small model takes as long to start and end as to train. More would
wait here while another host is free."""

PEAK_FLOPS = {
    "GH200": 989e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "B200": 2.25e15,
}
"""Dense bf16 FLOP/s from the data sheets, by a part of the device's name; the longer name first."""


def peak_flops(device_name: str) -> float | None:
    """Dense bf16 FLOP/s of a GPU by its name; None for one that is not in the table."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in device_name), None)


def runs_at_once(gpus: int) -> int:
    """How many runs the worker of a host with this many GPUs accepts; a host without any trains on its CPU."""
    return max(1, gpus) + WAITING
