"""One number per document, appended as it comes: an .npy file whose length is known only at the end."""

from pathlib import Path

import numpy as np


class Column:
    """A growing one-dimensional array on the disk. `np.load` reads the file once it is closed.

    The header comes first and holds the length. NumPy leaves room in it for any length, so it can be overwritten later
    (numpy.lib.format, GROWTH_AXIS_MAX_DIGITS).
    """

    def __init__(self, path: Path, kind: type[np.number]):
        self._file = path.open("wb")
        self._kind = np.dtype(kind)
        self._length = 0
        self._write_header()

    def append(self, values: np.ndarray) -> None:
        """Append `values` (n,). Raises TypeError if they are not of the type of the column."""
        if values.dtype != self._kind:
            raise TypeError(f"{values.dtype} for a column of {self._kind}")
        self._file.write(np.ascontiguousarray(values).data)
        self._length += len(values)

    def close(self) -> int:
        """Finish the file; returns the number of values."""
        self._file.seek(0)
        self._write_header()
        self._file.close()
        return self._length

    def _write_header(self) -> None:
        kind = np.lib.format.dtype_to_descr(self._kind)
        header = {"descr": kind, "fortran_order": False, "shape": (self._length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
