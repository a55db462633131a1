"""Lists of ids: which documents of a pool are on one."""

import csv
import hashlib
import io
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from tasks.corpus.lines import BOM
from tasks.corpus.pool.column import recognized
from tasks.errors import InputError
from tasks.records.layout import ArmFolder
from tasks.spec import Arm
from tasks.store.files import read_file
from tasks.store.root import Root


@dataclass(frozen=True)
class IdList:
    """The ids on a list as `recognized`, sorted and distinct, uint64 (n,), and the SHA-256 of its file."""

    ids: np.ndarray
    sha256: str

    @classmethod
    def of(cls, arm: Arm) -> "IdList":
        """The arm's list. A table has the ids in the arm's `id_column` or in its only one. Raises InputError."""
        assert arm.ids is not None
        content = read_file(arm.ids)
        try:
            ids = recognized(_column(arm, content))
        except pa.ArrowException as error:
            raise InputError(f"The list {arm.ids} cannot be read ({str(error).splitlines()[0]}): repair it.") from error
        if not len(ids):
            raise InputError(f"The list {arm.ids} is empty: give one with ids.")
        return cls(np.unique(ids[ids != 0]), hashlib.sha256(content).hexdigest())

    def on_it(self, ids: np.ndarray) -> np.ndarray:
        """Which of the documents, `recognized` (n,), are on the list, bool (n,)."""
        place = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return self.ids[place] == ids


def require_same_list(root: Root, arm: Arm, id: str) -> None:
    """Raises InputError when the text of the arm with this id was made of another list than lies at its URL now."""
    text = root.find(ArmFolder(id).text) if arm.ids else None
    if text and text.inputs["ids"] != IdList.of(arm).sha256:
        raise InputError(
            f"The list {arm.ids} is another one than {text.name} was made of: name the arm differently, or delete the "
            f"folder of {id} to make it again."
        )


def _column(arm: Arm, content: bytes) -> pa.ChunkedArray:
    name, content = arm.ids.lower(), content.removeprefix(BOM)
    if name.endswith(".parquet"):
        table = pq.ParquetFile(io.BytesIO(content)).read()
    elif name.endswith(".csv"):
        heads = next(csv.reader([content[: content.find(b"\n") + 1 or None].decode(errors="replace")]), [])
        texts = pa.csv.ConvertOptions(column_types=dict.fromkeys(heads, pa.string()))
        table = pa.csv.read_csv(io.BytesIO(content), convert_options=texts)
    else:
        lines = (line.strip().decode(errors="replace") for line in content.splitlines())
        table = pa.table({arm.id_column: pa.array([line for line in lines if line], pa.string())})
    if arm.id_column in table.column_names:
        return table.column(arm.id_column)
    if table.num_columns != 1:
        raise InputError(
            f"The list {arm.ids} has the columns {', '.join(table.column_names)}: call the one with the ids {arm.id_column}, or set id_column."
        )
    return table.column(0)
