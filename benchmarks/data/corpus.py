"""Raw data in the production schema at any size: text from the Python installation, random embeddings, random ratings.

Texts are pieces of 2,300 characters of source code and documentation, drawn again once they run out, each with its own first line; 80 % of a
file's bytes are embeddings of 1,024 floats, as in production, and all columns are written as pyarrow writes them by default.
"""

import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHARACTERS = 2_300
EMBEDDING = 1_024
RATINGS = (
    "education_level_average",
    "education_level_primary_average",
    "education_level_secondary_average",
    "factual_accuracy_average",
    "lesson_engagement_average",
    "pedagogical_structure_average",
)


def pieces(limit: int) -> list[str]:
    """Up to `limit` pieces of text from the standard library and the installed packages."""
    found: list[str] = []
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix not in (".py", ".md", ".rst", ".txt") and path.name != "METADATA":
                continue
            text = path.read_text(errors="ignore") if path.is_file() else ""
            found += [text[i : i + CHARACTERS] for i in range(0, len(text) - 200, CHARACTERS)]
            if len(found) >= limit:
                return found[:limit]
    return found


def order(rng: np.random.Generator, count: int, wanted: int) -> np.ndarray:
    """Which piece each document is: all of them in random order, again and again."""
    return np.concatenate([rng.permutation(count) for _ in range(-(-wanted // count))])[:wanted]


def tables(files: int, rows: int, embedding: int = EMBEDDING, seed: int = 0) -> Iterator[pa.Table]:
    """One table for each file."""
    rng = np.random.default_rng(seed)
    texts = pieces(min(files * rows, 60_000))
    chosen = order(rng, len(texts), files * rows)
    for number in range(files):
        mine = chosen[number * rows : (number + 1) * rows]
        vectors = rng.standard_normal(rows * embedding, dtype=np.float32) / 32
        columns = {
            "text": pa.array([f"{number}/{row}\n{texts[i]}" for row, i in enumerate(mine)]),
            "id": pa.array([f"<urn:uuid:{seed:02d}-{number:05d}-{i:08d}>" for i in range(rows)]),
            "dump": pa.array(["CC-MAIN-2023-50"] * rows),
            "url": pa.array([f"https://example.org/{number}/{i}" for i in range(rows)]),
            "language_score": pa.array(rng.uniform(0.8, 1, rows)),
            "token_count": pa.array([len(texts[i]) // 4 for i in mine], pa.int64()),
            "score": pa.array(rng.uniform(2.5, 5, rows)),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), embedding).cast(pa.list_(pa.float32())),
        }
        columns |= {name: pa.array(rng.normal(2.5, 1, rows), mask=rng.random(rows) < 0.001) for name in RATINGS}
        yield pa.table(columns)


def write(folder: Path, files: int, rows: int, embedding: int = EMBEDDING) -> Path:
    """Write the files below `folder`, or find them there from the last time."""
    folder = folder / f"raw-{files}x{rows}x{embedding}"
    mark = folder / ".complete"
    if not mark.exists():
        folder.mkdir(parents=True, exist_ok=True)
        print(f"writing {files} files of raw data to {folder}", file=sys.stderr)
        for number, table in enumerate(tables(files, rows, embedding)):
            name = f"part_{number:05d}.parquet"
            pq.write_table(table, folder / name, compression="snappy", row_group_size=1000)
        mark.touch()
    return folder
