"""The pool of the study as raw files, like those that anybody's rated corpus has: text, id, source, token_count and a column a rating.

Documents stand in an order drawn at random, so that files, and the blocks of the holdout, are alike.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.study import docs
from benchmarks.study.docs import Document
from benchmarks.study.ratings import Classifier, held_out_auc, labelled, rate

POOL, OUTSIDE, FACTS = "pool", "outside", "facts.json"
FILES, ROW_GROUP = 8, 200
CHARACTERS_PER_TOKEN = 4  # a guess, for shares and plans; arms are matched in tokens that were counted
SEED = 28


def build(folder: Path, processes: int) -> Path:
    """Make the pool and the outside texts below a folder, once; returns the folder of the corpus.

    Raises InputError when a package cannot be fetched.
    """
    corpus = folder / "corpus"
    if (corpus / FACTS).exists():
        return corpus
    packages = docs.listed()
    found = docs.documents(packages, folder / "packages", processes)
    outside = {package.name for package in packages if package.outside}
    pool = [document for document in found if document.package not in outside]
    texts, labels = labelled({document.id: document.text for document in pool})
    classifier = Classifier.fit(texts, labels)
    write(corpus, pool, [document for document in found if document.package in outside], classifier)
    facts = {
        "documents": len(pool),
        "characters": sum(len(document.text) for document in pool),
        "packages": len(packages),
        "labels": len(labels),
        "labels_that_teach": int(labels.sum()),
        "held_out_auc": round(held_out_auc(texts, labels), 3),
    }
    (corpus / FACTS).write_text(json.dumps(facts, indent=1) + "\n")
    return corpus


def write(corpus: Path, pool: Sequence[Document], outside: Sequence[Document], classifier: Classifier) -> None:
    """Write the documents of the pool, rated, and those of the outside texts, each into a folder of Parquet files."""
    order = np.random.default_rng(SEED).permutation(len(pool))
    shuffled = [pool[place] for place in order]
    rated = rate([document.text for document in shuffled], classifier)
    table = _table(shuffled)
    for name, values in rated.items():
        table = table.append_column(name, pa.array(values, pa.float32()))
    for number, part in enumerate(np.array_split(np.arange(len(table)), FILES)):
        _write(table.slice(part[0], len(part)), corpus / POOL / f"part_{number:02d}.parquet")
    _write(_table(outside), corpus / OUTSIDE / "texts.parquet")


def _table(documents: Sequence[Document]) -> pa.Table:
    return pa.table(
        {
            "id": [document.id for document in documents],
            "text": [document.text for document in documents],
            "source": [document.package for document in documents],
            "path": [document.path for document in documents],
            "token_count": pa.array([len(document.text) // CHARACTERS_PER_TOKEN for document in documents], pa.int32()),
        }
    )


def _write(table: pa.Table, file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, file, compression="zstd", compression_level=12, row_group_size=ROW_GROUP)
