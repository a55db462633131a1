"""Text from Debian's documentation packages: fetched by checksum, unpacked without dpkg, cut into documents of a page or two.

`packages.txt` has a line for each package: its SHA-256 and its path on a Debian mirror; those below `# outside` are kept out of the
pool, as texts from elsewhere.
"""

import gzip
import hashlib
import html
import io
import lzma
import re
import tarfile
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import chain
from pathlib import Path, PurePosixPath

from tasks.errors import InputError

PACKAGES = Path(__file__).with_name("packages.txt")
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
SHORTEST, LONGEST = 400, 8_000  # characters of a document
LARGEST = 4_000_000  # bytes of a file: above are tables and indexes
FOREIGN = 0.05  # more bytes than characters by this part: another language
TEXT = re.compile(r"\.(html?|txt|rst|info|[1-9][a-z]*)(\.gz)?$")
PAGE = re.compile(r"\.html?(\.gz)?$")
SKIPPED = re.compile(
    r"(^|/)(_sources|genindex|search|py-modindex|modindex|copyright|changelog)[^/]*(/|$)"
    r"|\.(?!en\b)[a-z]{2}(_[A-Z]{2})?\.html?$|/(?!en-)[a-z]{2}-[A-Z]{2}/|/translations/"
    r"|/(cs|da|de|el|es|fi|fr|hu|it|ja|ko|nl|no|pl|pt|ro|ru|sv|tr|uk|zh)/"
)
"""Sources beside their pages, indexes, and translations (`page.fr.html`, `/de-DE/`, `/fr/`)."""
CHROME = {"script", "style", "nav", "header", "footer", "head", "svg", "math", "form"}
CHROME_CLASS = re.compile(
    r"\b(sphinxsidebar|related|sidebar|navheader|navfooter|navigation|toc|toctree-wrapper|headerlink)\b"
)
VOID = {"br", "hr", "img", "input", "link", "meta", "col", "area", "base", "embed", "source", "track", "wbr", "param"}
BLOCK = {
    "p",
    "div",
    "pre",
    "h1",
    "h2",
    "h3",
    "h4",
    "h5",
    "h6",
    "table",
    "dl",
    "ul",
    "ol",
    "section",
    "blockquote",
    "hr",
}
LINE = {"br", "li", "tr", "dt", "dd"}


@dataclass(frozen=True)
class Package:
    """A package on a mirror; `outside`: its texts are no part of the pool."""

    sha256: str
    path: str
    outside: bool

    @property
    def name(self) -> str:
        return PurePosixPath(self.path).name.partition("_")[0]

    @property
    def url(self) -> str:
        return f"{SECURITY if self.path.startswith('pool/updates/') else MIRROR}/{self.path}"


@dataclass(frozen=True)
class Document:
    """A piece of a file: `package`, path of the file, text."""

    package: str
    path: str
    text: str

    @property
    def id(self) -> str:
        """By the text alone, so that labels stay true when packages come and go."""
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]


def listed(file: Path = PACKAGES) -> list[Package]:
    """The packages of a list."""
    packages, outside = [], False
    for line in file.read_text().splitlines():
        if line.startswith("#"):
            outside = outside or line == "# outside"
        elif line:
            checksum, path = line.split()
            packages.append(Package(checksum, path, outside))
    return packages


def fetch(package: Package, folder: Path) -> Path:
    """The package's file in a folder, downloaded unless it is there. Raises InputError when it is gone or has other content."""
    file = folder / PurePosixPath(package.path).name
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with urllib.request.urlopen(package.url, timeout=60) as answer:
                data = answer.read()
        except OSError as error:
            raise InputError(
                f"{package.url} cannot be fetched ({error}): Debian moves superseded versions to snapshot.debian.org; put the file into {folder}."
            ) from error
        part = file.with_suffix(".part")
        part.write_bytes(data)
        part.rename(file)
    if hashlib.sha256(file.read_bytes()).hexdigest() != package.sha256:
        raise InputError(f"{file} does not have the SHA-256 that {PACKAGES.name} names: remove it, and run again.")
    return file


def members(deb: Path) -> Iterator[tuple[str, bytes]]:
    """Path and content of the regular files in a .deb: an `ar` archive with a compressed tar in it."""
    with deb.open("rb") as archive:
        if archive.read(8) != b"!<arch>\n":
            raise InputError(f"{deb} is no Debian package: remove it, and run again.")
        while len(header := archive.read(60)) == 60:
            name, size = header[:16].decode().strip().rstrip("/"), int(header[48:58])
            data = archive.read(size + size % 2)[:size]
            if not name.startswith("data.tar"):
                continue
            plain = lzma.decompress(data) if name.endswith(".xz") else data
            with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
                for member in tar:
                    if member.isfile() and (content := tar.extractfile(member)):
                        yield member.name, content.read()


TAG = re.compile(r"<!--.*?-->|<(/?)([a-zA-Z][a-zA-Z0-9]*)([^>]*)>|<[!?][^>]*>", re.DOTALL)


def page_text(page: str) -> str:
    """The text of an HTML page without what frames it: paragraphs apart, code as it stands."""
    parts: list[str] = []
    hidden, depth, kept, place = (
        "",
        0,
        0,
        0,
    )  # the hidden element that is open, with how many like it, and the depth of <pre>
    for found in TAG.finditer(page):
        if not hidden and found.start() > place:
            text = page[place : found.start()]
            parts.append(text if kept else re.sub(r"\s+", " ", text))
        place = found.end()
        end, tag, attributes = found[1], (found[2] or "").lower(), found[3] or ""
        if hidden:
            depth += (-1 if end else 1) if tag == hidden and not attributes.endswith("/") else 0
            hidden = hidden if depth else ""
        elif (
            not end
            and tag not in VOID
            and (tag in CHROME or ("class" in attributes and CHROME_CLASS.search(attributes)))
        ):
            hidden, depth = ("", 0) if attributes.endswith("/") else (tag, 1)
        elif tag in BLOCK:
            parts.append("\n\n")
            kept = max(0, kept + (-1 if end else 1)) if tag == "pre" else kept
        elif tag in LINE and not end:
            parts.append("\n")
    return html.unescape("".join([*parts, "" if hidden else page[place:]]))


MACRO = re.compile(r"^[.'](SH|SS|B|I|BR|IR|RB|RI|BI|IB|SM|SB|IP|TP|Sh|Nm|Fl|Ar|Op)\s+(.*)$")
"""Macros of manual pages whose arguments are text."""
MARKS = {
    r"\-": "-",
    r"\(aq": "'",
    r"\*(Aq": "'",
    r"\[aq]": "'",
    r"\e": "\\",
    r"\(em": " - ",
    r"\(en": "-",
    r'\*(L"': '"',
    r'\*(R"': '"',
    r"\*(--": "-",
}


def manual_text(source: str) -> str:
    """The text of a manual page: words of the commonest macros, nothing of the others."""
    lines = []
    for line in re.sub(r"^\.de .*?^\.\.$", "", source, flags=re.DOTALL | re.MULTILINE).splitlines():
        macro = MACRO.match(line)
        if macro:
            words = re.sub(r"\s+\d+$", "", macro[2]).replace('"', "")
            lines.append(f"\n{words}\n" if macro[1] in ("SH", "SS", "IP") else words)
        elif line[:1] in (".", "'"):
            lines += [""] if re.match(r"\.(PP|P|LP|Pp|Sp|TP|IP|Vb|Ve)\b", line) else []
        else:
            lines.append(line)
    text = "\n".join(lines)
    for mark, character in MARKS.items():
        text = text.replace(mark, character)
    text = re.sub(r"\\\*\(C[`']|\\\*[`'^:.,~/]", "", text)
    return re.sub(r"\\f[A-Z]|\\f\([A-Z]{2}|\\&|\\c|\\/|\\,|\\s[-+]?\d|\\\([a-z]{2}", "", text)


def plain_text(path: str, data: bytes) -> str:
    """The text of one file of a package; "" for what is none."""
    if len(data) > LARGEST:
        return ""
    raw = gzip.decompress(data) if path.endswith(".gz") else data
    if len(raw) > LARGEST or b"\0" in raw[:1_000]:
        return ""
    text = raw.decode("utf-8", "ignore")
    if PAGE.search(path):
        text = page_text(text)
    elif "/man/man" in path:
        text = manual_text(text)
    elif "/info/" in path:
        text = re.sub(r"\x1f.*\n.*\n", "\n\n", text)
    text = text.replace("¶", "").replace("\r", "").replace("\xa0", " ")
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip()


def pieces(text: str) -> Iterator[str]:
    """The text, cut between paragraphs where it is longer than `LONGEST`; what is shorter than `SHORTEST` is left out."""
    piece = ""
    for paragraph in text.split("\n\n"):
        if piece and len(piece) + len(paragraph) > LONGEST:
            yield from _long_enough(piece)
            piece = ""
        piece = f"{piece}\n\n{paragraph}" if piece else paragraph[:LONGEST]
    yield from _long_enough(piece)


def _long_enough(piece: str) -> Iterator[str]:
    if len(piece) >= SHORTEST:
        yield piece


def documents_of(package: Package, folder: Path) -> list[Document]:
    """The documents of a package, in the order of its files: of its pages alone if it has pages, and none of other languages."""
    files = {
        path: data for path, data in members(fetch(package, folder)) if TEXT.search(path) and not SKIPPED.search(path)
    }
    pages = {path: data for path, data in files.items() if PAGE.search(path)}
    return [
        Document(package.name, path.removeprefix("./"), text)
        for path, data in (pages or files).items()
        for text in pieces(plain_text(path, data))
        if len(text.encode()) < (1 + FOREIGN) * len(text)
    ]


def documents(packages: Sequence[Package], folder: Path, processes: int) -> list[Document]:
    """The documents of packages, each text once."""
    with ProcessPoolExecutor(processes) as pool:
        return distinct(chain.from_iterable(pool.map(documents_of, packages, [folder] * len(packages))))


def distinct(found: Iterable[Document]) -> list[Document]:
    """Of several documents whose texts are equal but for blanks and case the first."""
    seen, kept = set(), []
    for document in found:
        key = hashlib.sha256(" ".join(document.text.lower().split()).encode()).digest()
        if key not in seen:
            seen.add(key)
            kept.append(document)
    return kept
