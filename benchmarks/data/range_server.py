"""A lean blob server with a set delay: what Azure Blob Storage answers to listings and ranged reads, from a folder.

    python -m benchmarks.data.range_server FOLDER [--delay 0.02] [--log REQUESTS] [--processes N]

Azurite hashes what it sends and is itself the bottleneck on ranges; this one sends from the page cache (sendfile). A
folder's sub-folders are its containers. It prints its port, and appends a line for each read blob range to the log.
"""

import argparse
import asyncio
import contextlib
import hashlib
import os
import socket
from email.utils import formatdate
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"
HOST = "127.0.0.1"
SMALL = 256 << 10
"""Answers of up to so many bytes are sent at once with their head."""


@cache
def etag(size: int, changed: int) -> str:
    """Of a file of `size` bytes that was changed at `changed` nanoseconds."""
    return '"' + hashlib.sha256(f"{size}/{changed}".encode()).hexdigest()[:16] + '"'


@cache
def date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


class RangeServer:
    """The blobs of a folder; each answer leaves `delay` seconds after its request."""

    def __init__(self, folder: Path, delay: float, log: Path | None):
        self.folder, self.delay = folder.resolve(), delay
        self.files: dict[str, Path] = {}
        self.log = log.open("a", buffering=1) if log else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept alive."""
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin1")
                request, *lines = head.split("\r\n")
                method, target, _ = request.split(" ")
                headers = {k.lower(): v.strip() for k, v in (line.split(":", 1) for line in lines if ":" in line)}
                await asyncio.sleep(self.delay)
                await self.answer(writer, method, target, headers)
        writer.close()

    async def answer(self, writer: asyncio.StreamWriter, method: str, target: str, headers: dict[str, str]) -> None:
        place, _, query = target.partition("?")
        if "comp=list" in query:
            container = unquote(place.rsplit("/", 1)[1])
            body = self.listing(container, parse_qs(query).get("prefix", [""])[0]).encode()
            writer.write(self.head("200 OK", len(body), {"Content-Type": "application/xml"}) + body)
            return await writer.drain()
        file = self.locate(place)
        if file is None:
            return writer.write(self.head("404 Not Found", 0, {"x-ms-error-code": "BlobNotFound"}))
        status = file.stat()
        size, tag = status.st_size, etag(status.st_size, status.st_mtime_ns)
        if headers.get("if-match", tag) not in (tag, "*"):
            return writer.write(self.head("412 Precondition Failed", 0, {"x-ms-error-code": "ConditionNotMet"}))
        start, end, answer = 0, size, "200 OK"
        wanted = headers.get("range") or headers.get("x-ms-range")
        extra = {"ETag": tag, "Last-Modified": date(int(status.st_mtime)), "Accept-Ranges": "bytes"}
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else size - int(last)
            end = min(int(last) + 1, size) if first and last else size
            answer = "206 Partial Content"
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        head = self.head(answer, end - start, {**extra, "x-ms-blob-type": "BlockBlob"})
        if method != "GET":
            return writer.write(head)
        if self.log:
            self.log.write(f"{file.relative_to(self.folder).as_posix()}\t{start}\t{end}\n")
        with file.open("rb", buffering=0) as opened:
            if end - start <= SMALL:
                writer.write(head + os.pread(opened.fileno(), end - start, start))
                return await writer.drain()
            writer.write(head)
            await writer.drain()
            await asyncio.get_running_loop().sendfile(writer.transport, opened, start, end - start)

    def locate(self, place: str) -> Path | None:
        """The file that a path of the account names."""
        if place not in self.files:
            file = self.folder.joinpath(*[unquote(part) for part in place.split("/") if part][1:]).resolve()
            if not file.is_relative_to(self.folder) or not file.is_file():
                return None
            self.files[place] = file
        return self.files[place]

    def head(self, status: str, length: int, headers: dict[str, str]) -> bytes:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "x-ms-version: 2023-11-03", "x-ms-request-id: 0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def listing(self, container: str, prefix: str) -> str:
        """The XML of List Blobs, all on one page."""
        base = self.folder / container
        files = sorted(p for p in base.rglob("*") if p.is_file())
        blobs = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{date(int(p.stat().st_mtime))}"
            f"</Last-Modified><Etag>{escape(etag(p.stat().st_size, p.stat().st_mtime_ns))}</Etag>"
            f"<Content-Length>{p.stat().st_size}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for p in files
            if (name := p.relative_to(base).as_posix()).startswith(prefix)
        )
        return (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{escape(container)}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
        )


async def serve(arguments: argparse.Namespace, listening: socket.socket) -> None:
    """Answer what comes in, without an end."""
    server = RangeServer(arguments.folder, arguments.delay, arguments.log)
    async with await asyncio.start_server(server.serve, sock=listening, backlog=1024, limit=1 << 20) as running:
        await running.serve_forever()


def main() -> None:
    """Listen on a free loopback port and say which."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--log", type=Path)
    parser.add_argument("--processes", type=int, default=1, help="that answer, sharing the port")
    arguments = parser.parse_args()
    with socket.create_server((HOST, 0)) as listening:
        forked = any(os.fork() == 0 for _ in range(arguments.processes - 1))
        if not forked:
            print(listening.getsockname()[1], flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(serve(arguments, listening))


if __name__ == "__main__":
    main()
