"""The demo's raw data: real documentation text from this machine, in the schema of a rated web corpus.

Texts are Python's help topics, docstrings of the standard library and of installed dependencies, and the descriptions in
packages' metadata: read from source files, nothing is imported. The ratings are a plain heuristic over each text, no
model's judgement, and the embeddings are random unit vectors that only stand in for the bytes of real ones. The same
packages of the lock give the same files.
"""

import ast
import hashlib
import re
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.local.deploy import PROJECT
from infra.local.stack import SAMPLE_NAME
from tasks.errors import DamagedError
from tasks.progress import Progress, silent
from tasks.store.artifact import Artifact, Work, fingerprint
from tasks.store.root import Root

RECIPE = 1  # raise it when the code below makes other files of the same packages
DOCUMENTS, FILES, ROW_GROUP = 4_000, 5, 200
SHORTEST, LONGEST = 300, 4_000  # characters of one document; longer texts are cut between paragraphs
DIMENSIONS = 1_024
LOCK = PROJECT / "requirements.lock"
NULL_SHARE = 0.002
PACKAGES = ("numpy", "pyarrow", "pydantic", "matplotlib", "sqlalchemy", "rich", "paramiko", "fastapi")
RATINGS = (
    "education_level",
    "education_level_primary",
    "education_level_secondary",
    "factual_accuracy",
    "lesson_engagement",
    "pedagogical_structure",
)

EXAMPLE = re.compile(r"^\s*(>>>|\$ |```|\.\. code)", re.MULTILINE)
STRUCTURE = re.compile(r"^\s*([-*•] |\d+[.)] |#+ |[=~-]{4,}$|:param|Parameters|Returns|Args:|Raises)", re.MULTILINE)
EXPLAINS = re.compile(r"\b(for example|e\.g\.|because|note that|means|this is|such as|therefore|see also)\b", re.I)
PRECISE = re.compile(r"\b(must|returns?|raises?|defaults? to|specified|equivalent|\d+(\.\d+)?)\b", re.I)
SPEAKS = re.compile(r"\b(you|your|we|let's|try|want|how to)\b|[?!]", re.I)


def build_sample(
    home: Path, documents: int = DOCUMENTS, packages: Sequence[str] = PACKAGES, progress: Progress = silent
) -> Artifact:
    """The sample below `home`/sample, made anew when other packages are installed than last time."""
    root, spec = Root(home / "sample"), _spec(documents, packages)

    def make(work: Work) -> None:
        texts = choose(documents, packages, progress)
        for number, part in enumerate(np.array_split(np.arange(len(texts)), FILES)):
            name = f"part_{number:05d}.parquet"
            table = rated_table([texts[i] for i in part], number)
            pq.write_table(
                table, work.temporary(name), compression="snappy", row_group_size=ROW_GROUP, use_dictionary=["dump"]
            )
            work.finish(name, rows=len(part))
            progress("sample files", number + 1, FILES, {})
        work.facts.update(documents=len(texts), characters=sum(len(text) for _, text in texts))

    try:
        return root.build(SAMPLE_NAME, make, spec=spec)
    except DamagedError:
        root.remove(SAMPLE_NAME)
        return root.build(SAMPLE_NAME, make, spec=spec)


def is_built(home: Path) -> bool:
    """Whether the sample below `home`/sample is that of the packages which are installed."""
    found = Root(home / "sample").find(SAMPLE_NAME)
    return found is not None and found.spec == _spec(DOCUMENTS, PACKAGES)


def _spec(documents: int, packages: Sequence[str]) -> dict[str, Any]:
    return {
        "recipe": RECIPE,
        "documents": documents,
        "python": sys.version.split()[0],
        "installed": _versions(),
        "packages": list(packages),
    }


def choose(documents: int, packages: Sequence[str], progress: Progress = silent) -> list[tuple[str, str]]:
    """(origin, text) of at most so many distinct texts, in an order that depends on the texts alone."""
    found: dict[str, tuple[str, str]] = {}
    for number, (origin, text) in enumerate(_texts(packages)):
        for piece in pieces(text):
            found.setdefault(hashlib.sha256(piece.encode()).hexdigest(), (origin, piece))
        if number % 500 == 0:
            progress("sample texts", min(len(found), documents), documents, {})
    return [found[digest] for digest in sorted(found)[:documents]]


def pieces(text: str) -> Iterator[str]:
    """The text, cut between paragraphs where it is too long; what is too short is left out."""
    piece = ""
    for paragraph in re.split(r"\n\s*\n", text.replace("\r\n", "\n").strip()):
        if piece and len(piece) + len(paragraph) > LONGEST:
            if len(piece) >= SHORTEST:
                yield piece
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph[:LONGEST]
    if len(piece) >= SHORTEST:
        yield piece


def rate(text: str) -> dict[str, float]:
    """Six ratings of about 0 to 5 from counts per 1,000 characters: a heuristic, good enough to order by."""
    scale = 1_000 / len(text)

    def rating(base: float, **weighted: tuple[float, int]) -> float:
        return float(np.clip(base + sum(w * np.log1p(n * scale) for w, n in weighted.values()), 0, 5))

    words = text.split()
    word_length = sum(map(len, words)) / max(len(words), 1)
    examples, structure = len(EXAMPLE.findall(text)), len(STRUCTURE.findall(text))
    explains, precise, speaks = (len(p.findall(text)) for p in (EXPLAINS, PRECISE, SPEAKS))
    return {
        "education_level": rating(1.0, length=(1.0, int(word_length)), explains=(0.5, explains)),
        "education_level_primary": rating(0.5, speaks=(0.6, speaks), explains=(0.3, explains)),
        "education_level_secondary": rating(1.0, explains=(0.7, explains), examples=(0.4, examples)),
        "factual_accuracy": rating(1.2, precise=(0.8, precise), structure=(0.2, structure)),
        "lesson_engagement": rating(0.6, speaks=(0.7, speaks), examples=(0.6, examples)),
        "pedagogical_structure": rating(0.8, structure=(0.6, structure), explains=(0.6, explains), ex=(0.4, examples)),
    }


def rated_table(texts: Sequence[tuple[str, str]], number: int) -> pa.Table:
    """Documents as a table in the schema of the raw data; `number` is the file's, for the random parts."""
    rng = np.random.default_rng([RECIPE, number])
    vectors = rng.standard_normal((len(texts), DIMENSIONS), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    ratings = [rate(text) for _, text in texts]
    offsets = pa.array(np.arange(len(texts) + 1) * DIMENSIONS, pa.int32())
    columns = {
        "text": pa.array([text for _, text in texts]),
        "id": pa.array([f"<urn:sha256:{hashlib.sha256(text.encode()).hexdigest()[:32]}>" for _, text in texts]),
        "dump": pa.array([origin.split("/")[0] for origin, _ in texts]),
        "url": pa.array([origin for origin, _ in texts]),
        "token_count": pa.array([len(text) // 4 for _, text in texts], pa.int64()),
        "score": pa.array([float(np.mean(list(r.values()))) for r in ratings]),
        "embedding": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
    }
    for name in RATINGS:
        missing = rng.random(len(texts)) < NULL_SHARE
        columns[f"{name}_average"] = pa.array([r[name] for r in ratings], mask=missing)
    return pa.table(columns)


def _texts(packages: Sequence[str]) -> Iterator[tuple[str, str]]:
    """All (origin, text) that the sample may be taken from, in a fixed order."""
    from pydoc_data.topics import topics

    for name in sorted(topics):
        yield f"topics/{name}", topics[name]
    for distribution in _distributions():
        yield f"readme/{distribution.name}", distribution.metadata.get_payload() or ""  # type: ignore[attr-defined] # an email.message.Message
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if not {"test", "tests", "site-packages", "idlelib", "lib2to3"} & set(parts):
            yield from _docstrings(path, f"stdlib/{'/'.join(parts)}")
    installed = Path(sysconfig.get_path("purelib"))
    for package in packages:
        for path in sorted((installed / package).rglob("*.py")):
            relative = path.relative_to(installed)
            if not {"test", "tests", "testing"} & set(relative.parts):
                yield from _docstrings(path, f"packages/{relative.as_posix()}")


def _docstrings(path: Path, origin: str) -> Iterator[tuple[str, str]]:
    """The docstrings of a source file: the module's, each function's, and each class's together with its methods'."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    yield origin, ast.get_docstring(tree) or ""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{origin}#{node.name}", _documented(node)
        elif isinstance(node, ast.ClassDef):
            methods = [n for n in node.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
            yield f"{origin}#{node.name}", "\n\n".join(filter(None, map(_documented, [node, *methods])))


def _documented(node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> str:
    """Name and docstring as `help()` would show them, or nothing without a docstring."""
    docstring = ast.get_docstring(node)
    if not docstring:
        return ""
    head = f"class {node.name}" if isinstance(node, ast.ClassDef) else f"{node.name}({ast.unparse(node.args)})"
    return f"{head}\n\n{docstring}"


def _distributions() -> list[metadata.Distribution]:
    """Installed distributions that requirements.lock names, each once: what somebody adds to the environment changes no sample."""
    locked = {_named(line.partition("==")[0]) for line in LOCK.read_text().splitlines() if "==" in line}
    found = {_named(d.name): d for d in metadata.distributions() if d.name}
    return [found[name] for name in sorted(found) if name in locked]


def _named(name: str) -> str:
    """A distribution's name as PyPI compares them."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _versions() -> str:
    """A fingerprint of those packages."""
    return fingerprint([[d.name, d.version] for d in _distributions()])
