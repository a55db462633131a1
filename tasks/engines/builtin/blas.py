"""Products by cuBLASLt itself, for what PyTorch does not offer: sums of fp8 products with what is there already (`base`), which would
otherwise take another pass over memory, and one call for all precisions.

cuBLAS ranks several algorithms for a product, and the first is taken, but for fp8 with the fewer bits: there those that store a tile while
the next is summed are ranked low, and take 0.63 to 0.88 of the time, whole steps 0.989 (H200, d12 and d20). In bf16 others are faster
alone, too, but draw more power, of which a GPU in training is at the limit: whole steps took 0.991 to 1.004 of the time.
"""

import ctypes
import functools

import torch
from torch import Tensor

TYPES = {torch.float32: 0, torch.bfloat16: 14, torch.float8_e4m3fn: 28, torch.float8_e5m2: 29}
"""cudaDataType_t."""
COMPUTE_32F = 68
TRANSPOSE_A, TRANSPOSE_B, SCALE_A, SCALE_B, FAST_ACCUMULATION = 3, 4, 17, 18, 25
"""Attributes of a product (cublasLtMatmulDescAttributes_t)."""
MAX_WORKSPACE = 1
"""Attribute of a preference."""
CUSTOM_OPTION = 5
"""Attribute of an algorithm (cublasLtMatmulAlgoConfigAttributes_t); what its values mean is each algorithm's own."""
OVERLAPPING = {(13, 9): (1, 2)}
"""By major versions of cuBLAS and of the compute capability: its values for kernels that store while they sum, as measured there."""
CANDIDATES = 10
WORKSPACE_BYTES = 64 << 20


class Algorithm(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t; its first part is the algorithm itself."""

    _fields_ = [
        ("itself", ctypes.c_uint64 * 8),
        ("workspace", ctypes.c_size_t),
        ("status", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    ]


Plan = tuple[ctypes.c_void_p, tuple[ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p], Algorithm]
"""How cuBLASLt knows a kind of product: description, layouts, and the algorithm."""


def cut_of(rows: int, columns: int, processors: int) -> tuple[int, int]:
    """Into which two lengths to cut the longer side of a weight's gradient (the second 0: leave it whole).

    A weight's gradient has few tiles, each with a sum over all tokens. When a 4 : 1 output has more tiles of 128 x 256 than the GPU
    processors, its last wave is mostly idle; two parts fill theirs better. Measured on an H100 with a sum over 65,536: 0.85 to 0.91 of
    the time at 5120 x 1280 with 4/5, 0.94 at 6656 x 1664 with 3/4, and worse than whole at 3072 x 768, which fits in one wave.
    """
    length, other = max(rows, columns), min(rows, columns)
    waves = rows * columns / (processors * 128 * 256)
    if length != 4 * other or waves <= 1:
        return length, 0
    first = length * 4 // 5 // 128 * 128 if waves <= 2 else length * 3 // 4
    return first, length - first


class Blas:
    """Products on one GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.processors = torch.cuda.get_device_properties(device).multi_processor_count
        self.library = ctypes.CDLL(f"libcublasLt.so.{str(torch.version.cuda).split('.')[0]}")  # PyTorch has loaded it
        self.handle = ctypes.c_void_p()
        self._call("cublasLtCreate", ctypes.byref(self.handle))
        self.library.cublasLtGetVersion.restype = ctypes.c_size_t
        version, capability = self.library.cublasLtGetVersion() // 10_000, torch.cuda.get_device_capability(device)[0]
        self.overlapping = OVERLAPPING.get((version, capability), ())
        self.workspace = torch.empty(WORKSPACE_BYTES, dtype=torch.uint8, device=device)
        self.plans: dict[tuple, Plan] = {}

    def multiply(
        self,
        left: Tensor,
        right: Tensor,
        out: Tensor,
        base: Tensor | None = None,
        scales: tuple[Tensor, Tensor] | None = None,
        fast: bool = False,
    ) -> Tensor:
        """out (M, N) = left (M, K) right (K, N), plus base (M, N) where given: that may be `out` itself. Returns out.

        left and right in bf16, or in fp8 with their `scales` (0-d fp32, by which they are multiplied); transposed views are fine.
        Sums are in fp32; `fast`: those of fp8 with the fewer bits of its tensor cores alone. Raises RuntimeError when cuBLAS does.
        """
        key = (
            left.shape, left.stride(), left.dtype, right.shape, right.stride(), right.dtype, out.stride(), out.dtype, fast,
        )  # fmt: skip
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self._plan(left, right, out, scales is not None, fast)
        description, (a, b, c), algorithm = plan
        if scales is not None:
            self._set(description, SCALE_A, ctypes.c_void_p(scales[1].data_ptr()))
            self._set(description, SCALE_B, ctypes.c_void_p(scales[0].data_ptr()))
        pointer = ctypes.c_void_p
        one, beta = ctypes.c_float(1.0), ctypes.c_float(0.0 if base is None else 1.0)
        added = out if base is None else base
        self._call(  # column by column, as cuBLAS thinks: out^T = right^T left^T
            "cublasLtMatmul", self.handle, description, ctypes.byref(one), pointer(right.data_ptr()), a,
            pointer(left.data_ptr()), b, ctypes.byref(beta), pointer(added.data_ptr()), c, pointer(out.data_ptr()), c,
            ctypes.byref(algorithm), pointer(self.workspace.data_ptr()), ctypes.c_size_t(WORKSPACE_BYTES),
            pointer(torch.cuda.current_stream(self.device).cuda_stream),
        )  # fmt: skip
        return out

    def add_product(
        self, grad: Tensor, left: Tensor, right: Tensor, scales: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """A weight's gradient (N, K) fp32 += left (N, M) right (M, K), in parts as `cut_of` has them; else as `multiply`."""
        start = 0
        for length in cut_of(*grad.shape, self.processors):
            part = slice(start, start + length)
            start += length
            if length and grad.size(0) > grad.size(1):
                self.multiply(left[part], right, grad[part], grad[part], scales)
            elif length:
                self.multiply(left, right[:, part], grad[:, part], grad[:, part], scales)

    def _plan(self, left: Tensor, right: Tensor, out: Tensor, scaled: bool, fast: bool) -> Plan:
        description, preference = ctypes.c_void_p(), ctypes.c_void_p()
        self._call("cublasLtMatmulDescCreate", ctypes.byref(description), COMPUTE_32F, TYPES[torch.float32])
        self._set(description, TRANSPOSE_A, ctypes.c_int32(right.stride(1) != 1))
        self._set(description, TRANSPOSE_B, ctypes.c_int32(left.stride(1) != 1))
        if scaled:
            for attribute in (SCALE_A, SCALE_B):  # any address: the algorithm depends on there being one
                self._set(description, attribute, ctypes.c_void_p(self.workspace.data_ptr()))
            self._set(description, FAST_ACCUMULATION, ctypes.c_int8(fast))
        a, b, c = layouts = self._layout(right), self._layout(left), self._layout(out)
        self._call("cublasLtMatmulPreferenceCreate", ctypes.byref(preference))
        limit = ctypes.c_size_t(WORKSPACE_BYTES)
        self._call(
            "cublasLtMatmulPreferenceSetAttribute", preference, MAX_WORKSPACE, ctypes.byref(limit), ctypes.c_size_t(8)
        )
        ranked, count = (Algorithm * CANDIDATES)(), ctypes.c_int()
        self._call(
            "cublasLtMatmulAlgoGetHeuristic", self.handle, description, a, b, c, c, preference, CANDIDATES, ranked,
            ctypes.byref(count),
        )  # fmt: skip
        self._call("cublasLtMatmulPreferenceDestroy", preference)
        preferred = (each for each in ranked[: count.value] if fast and self._custom_option(each) in self.overlapping)
        return description, layouts, next(preferred, ranked[0])

    def _custom_option(self, algorithm: Algorithm) -> int:
        value, written = ctypes.c_uint32(), ctypes.c_size_t()
        self._call(
            "cublasLtMatmulAlgoConfigGetAttribute", ctypes.byref(algorithm), CUSTOM_OPTION, ctypes.byref(value),
            ctypes.c_size_t(ctypes.sizeof(value)), ctypes.byref(written),
        )  # fmt: skip
        return value.value

    def _layout(self, x: Tensor) -> ctypes.c_void_p:
        """A matrix as it lies in memory, column by column: a row-major one is its own transpose."""
        turned = x.stride(1) != 1
        rows, columns = x.shape if turned else x.shape[::-1]
        layout = ctypes.c_void_p()
        self._call(
            "cublasLtMatrixLayoutCreate", ctypes.byref(layout), TYPES[x.dtype], ctypes.c_uint64(rows), ctypes.c_uint64(columns),
            ctypes.c_int64(x.stride(1) if turned else x.stride(0)),
        )  # fmt: skip
        return layout

    def _set(self, description: ctypes.c_void_p, attribute: int, value: ctypes._SimpleCData) -> None:
        size = ctypes.c_size_t(ctypes.sizeof(value))
        self._call("cublasLtMatmulDescSetAttribute", description, attribute, ctypes.byref(value), size)

    def _call(self, name: str, *arguments: object) -> None:
        status = getattr(self.library, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} of cuBLAS ended with status {status}")


class NoBlas:
    """The same on the meta device, where there is nothing to multiply."""

    def multiply(self, left: Tensor, right: Tensor, out: Tensor, **how: object) -> Tensor:
        return out

    def add_product(self, grad: Tensor, left: Tensor, right: Tensor, scales: object = None) -> None:
        """Nothing to add."""


@functools.cache
def blas_of(device: torch.device) -> Blas | NoBlas:
    """The one of this process: its handle and its plans serve every run."""
    return NoBlas() if device.type == "meta" else Blas(device)
