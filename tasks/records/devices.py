"""GPUs by the names that their drivers give them."""

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
    for part, peak in PEAK_FLOPS.items():
        if part in device_name:
            return peak
    return None
