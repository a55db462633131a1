"""What a URL names: which store, which container, which folder. Every room that takes a URL reads it here.

    az://container/prefix, abfs://container/prefix     the account comes from the environment
    https://ACCOUNT.blob.core.windows.net/container/prefix         as the portal shows it: percent-encoded
    abfss://container@ACCOUNT.dfs.core.windows.net/prefix, wasbs://container@ACCOUNT.blob.core.windows.net/prefix
    s3://bucket/prefix, gs://bucket/prefix
    hf://organisation/dataset[@revision][/folder]      the revision may have slashes: refs/convert/parquet
    https://host/folder/files.txt or .json             a list of files: a web server has no listing (see `web`)
    file:///folder (percent-encoded), or a plain path

Where no encoding is named, every character stands for itself: `#`, `?` and `%` are part of a name. The last part may be a
pattern with `*` (`az://raw/web/part-0*.parquet`; `**` crosses folders) or one data file (`az://raw/web/part-07.parquet`).
"""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import unquote

from tasks.errors import InputError

SIGNATURE = r"[?&;](?:[Xx]-[A-Za-z]+-)?[Ss][Ii][Gg](?:[Nn][Aa][Tt][Uu][Rr][Ee])?="
"""What only a signed URL has: whoever reads it can read the store. Without flags, so that a JSON schema can use it, too."""
DATA_FILE = re.compile(r"\.(?:parquet|jsonl|jsonl\.gz|jsonl\.zst)$")
"""Ends the name of a data file, or of a folder that a writer such as Spark called like one."""
SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://(.*)$", re.DOTALL)
ACCOUNT_HOST = re.compile(r"^([a-z0-9]{3,24})\.(?:blob|dfs)\.([a-z0-9.-]+)$")
KNOWN = (
    "az://container/prefix, https://ACCOUNT.blob.core.windows.net/container/prefix, s3://bucket/prefix, gs://bucket/prefix, "
    "hf://organisation/dataset, file:///folder or a plain path"
)
LISTS = (".json", ".txt")
"""Endings of what lists files on a web server."""
ALIASES = {"azure": "az", "abfs": "az", "abfss": "az", "s3a": "s3", "s3n": "s3", "gcs": "gs"}
"""Schemes of other tools for the same stores."""


@dataclass(frozen=True)
class Location:
    """What a URL names. `folder` is the prefix of an object store, or a path of this machine."""

    kind: Literal["file", "az", "s3", "gs", "hf", "http"]
    folder: str
    container: str = ""
    """The container, bucket, or scheme and host of a web server."""
    account: str = ""
    """The storage account that the URL itself names, if it does."""
    suffix: str = ""
    """Of the account's host name, such as core.windows.net."""
    pattern: str = ""
    """Which names below `folder` are meant: with `*`, or one file, or all in a folder that is called like one; empty: all."""
    url: str = field(default="", compare=False)
    """As it was given, for messages."""

    @property
    def path(self) -> Path | None:
        """The folder on this machine, or None for a remote store."""
        return Path(self.folder).expanduser() if self.kind == "file" else None

    def below(self, other: "Location") -> str | None:
        """The names of what lies in `folder` begin so, seen from another location: "" if it is that one, None if it is not in it."""
        different = self.account and other.account and self.account != other.account
        if different or (self.kind, self.container) != (other.kind, other.container):
            return None
        inner, outer = (place.path.resolve() if place.path else PurePosixPath(place.folder) for place in (self, other))
        if not inner.is_relative_to(outer):
            return None
        return f"{inner.relative_to(outer).as_posix()}/".removeprefix("./")

    @property
    def single(self) -> bool:
        """Whether one name is meant: a file, or a folder that is called like one."""
        return bool(self.pattern) and "*" not in self.pattern

    @property
    def base(self) -> str:
        """The URL of `folder`."""
        if not self.pattern:
            return self.url
        cut = self.pattern.count("/") + 1
        parts = self.url.rstrip("/").rsplit("/", cut)
        return parts[0] if len(parts) > cut else "."

    def takes(self, name: str) -> bool:
        """Whether a name below `folder` matches the pattern."""
        if self.single:
            return f"{name}/".startswith(f"{self.pattern}/")
        return not self.pattern or _regex(self.pattern).fullmatch(name) is not None


def require_unsigned(url: str) -> str:
    """The URL itself. Raises InputError for one with a signature, which the message does not repeat."""
    if re.search(SIGNATURE, unquote(url)):
        raise InputError(
            f"The URL {re.split(r'[?]|%3[Ff]', url)[0]} carries a signature: leave out everything from the ? on, and put the signature into "
            "the environment as AZURE_STORAGE_SAS_TOKEN, because URLs are stored and shown."
        )
    return url


def require_folder(url: str) -> Location:
    """What a URL names that cannot be a pattern, such as a root. Raises InputError as `parse_url` does, and for a pattern."""
    place = parse_url(url)
    if place.pattern:
        raise InputError(f"The URL {url!r} has a `*`, but must name one folder: leave out the part with the `*`.")
    return place


def parse_url(url: str) -> Location:
    """Read a URL or a path. Raises InputError, naming the URL and what would do, for one that cannot be meant."""
    require_unsigned(url)
    return replace(_split(_meant(url)), url=url)


def parse_source(url: str) -> Location:
    """The same for a place of data files: the name of one file is its pattern. Raises InputError as `parse_url` does."""
    place = parse_url(url)
    folder, _, name = place.folder.rpartition("/")
    is_folder = place.path is not None and place.path.is_dir()
    if place.pattern or is_folder or not DATA_FILE.search(name) or (place.kind == "hf" and "/" not in folder):
        return place
    folder = folder or ("/" if place.folder.startswith("/") else "." if place.kind == "file" else "")
    return replace(place, folder=folder, pattern=name)


def _meant(url: str) -> Location:
    if not url.strip():
        raise InputError(f"The URL is empty: use {KNOWN}.")
    if url[:5].lower() == "file:":
        return _file(url)
    found = SCHEME.match(url)
    if found is None:
        if re.match(r"\s*[A-Za-z][A-Za-z0-9+.-]+:/", url):  # as a path, it would be a folder of that name
            raise InputError(
                f"The URL {url.partition('?')[0]!r} has a blank before it or one slash too few: use {KNOWN}."
            )
        return Location("file", url)
    scheme, rest = found[1].lower(), found[2]
    scheme = ALIASES.get(scheme, scheme)
    authority, _, path = rest.partition("/")
    if scheme == "az" and "@" not in authority:
        return _azure(url, authority, path)
    if scheme in ("az", "wasb", "wasbs"):
        container, _, host = authority.partition("@")
        return _azure(url, container, path, host)
    if scheme in ("s3", "gs"):
        if not authority:
            raise InputError(f"The URL {url!r} names no bucket: use {scheme}://bucket/prefix.")
        return Location("s3" if scheme == "s3" else "gs", path.strip("/"), authority)
    if scheme in ("http", "https"):
        path, query, _ = path.partition("?")
        if query:  # a snapshot or a version would be another blob than the one that is read
            raise InputError(f"The URL {url!r} has a query: leave out everything from the ? on.")
        if scheme == "https" and ACCOUNT_HOST.match(authority.lower()):
            container, _, prefix = _decoded(url, path).partition("/")
            return _azure(url, container, prefix, authority)
        if not path.endswith(LISTS):
            raise InputError(
                f"The URL {url!r} is on a web server, which lists no files: name a list of them there, a .txt with a name a line or "
                f"a .json, or use {KNOWN}."
            )
        return Location("http", _decoded(url, path), f"{scheme}://{authority}")
    if scheme == "hf":
        return Location("hf", rest.strip("/"))
    raise InputError(f"The URL {url.partition('?')[0]!r} has the scheme {scheme!r} and is not supported: use {KNOWN}.")


def _file(url: str) -> Location:
    rest = url[5:]
    if rest.startswith("//") and not rest.startswith("///"):
        host, _, path = rest[2:].partition("/")
        if host != "localhost":
            raise InputError(
                f"The URL {url!r} names a host, {host!r}: write three slashes, file:///{host}/{path}, or the plain path."
            )
        rest = f"/{path}"
    return Location("file", _decoded(url, re.sub("^/+", "/", rest)))


def _decoded(url: str, path: str) -> str:
    if "%2a" in path.lower():  # decoded, it would be taken for a pattern
        raise InputError(f"The URL {url!r} means a name with a `*`, which cannot be read: rename it, or use a pattern.")
    return unquote(path)


def _azure(url: str, container: str, prefix: str, host: str | None = None) -> Location:
    account, suffix = "", ""
    if host is not None:
        named = ACCOUNT_HOST.match(host.lower())
        if named is None:
            raise InputError(f"The URL {url!r} names no storage account: write container@ACCOUNT.dfs.core.windows.net.")
        account, suffix = named[1], named[2]
    if not container:
        raise InputError(f"The URL {url!r} names no container: use az://container/prefix.")
    return Location("az", prefix.strip("/"), container, account, suffix)


def _split(found: Location) -> Location:
    """Cut the folder before its first part with a `*`."""
    parts = found.folder.split("/")
    first = next((number for number, part in enumerate(parts) if "*" in part), None)
    if first is None:
        return found
    folder = "/".join(parts[:first]) or ("/" if found.folder.startswith("/") else "." if found.kind == "file" else "")
    return replace(found, folder=folder, pattern="/".join(parts[first:]))


def _regex(pattern: str) -> re.Pattern[str]:
    pieces = re.split(r"(\*\*/|\*\*|\*)", pattern)
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}
    return re.compile("".join(meaning.get(piece, re.escape(piece)) for piece in pieces), re.DOTALL)
