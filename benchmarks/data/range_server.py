"""A lean blob server with a set delay: what Azure Blob Storage answers to listings and ranged reads, from a folder.

    python -m benchmarks.data.range_server FOLDER [--delay 0.02] [--log REQUESTS]

Azurite hashes what it sends and is itself the bottleneck on ranges; this one sends from the page cache (sendfile). A
folder's sub-folders are its containers. It prints its port, and appends a line for each read blob range to the log.
"""

import argparse
import asyncio
import contextlib
import hashlib
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

ACCOUNT = "devstoreaccount1"
HOST = "127.0.0.1"


def etag(path: Path) -> str:
    """Changes with the file's size or time of change."""
    status = path.stat()
    return '"' + hashlib.sha256(f"{status.st_size}/{status.st_mtime_ns}".encode()).hexdigest()[:16] + '"'


class RangeServer:
    """The blobs of a folder; each answer leaves `delay` seconds after its request."""

    def __init__(self, folder: Path, delay: float, log: Path | None):
        self.folder, self.delay = folder, delay
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
        parts = urlsplit(target)
        query = parse_qs(parts.query)
        path = [unquote(part) for part in parts.path.split("/") if part]
        if "comp" in query and query["comp"] == ["list"]:
            body = self.listing(path[-1], query.get("prefix", [""])[0]).encode()
            await self.head(writer, "200 OK", len(body), {"Content-Type": "application/xml"})
            writer.write(body)
            return
        file = self.folder.joinpath(*path[1:]).resolve()
        if not file.is_relative_to(self.folder.resolve()) or not file.is_file():
            return await self.head(writer, "404 Not Found", 0, {"x-ms-error-code": "BlobNotFound"})
        size, tag = file.stat().st_size, etag(file)
        if headers.get("if-match", tag) not in (tag, "*"):
            return await self.head(writer, "412 Precondition Failed", 0, {"x-ms-error-code": "ConditionNotMet"})
        start, end, status = 0, size, "200 OK"
        wanted = headers.get("range") or headers.get("x-ms-range")
        extra = {"ETag": tag, "Last-Modified": formatdate(file.stat().st_mtime, usegmt=True), "Accept-Ranges": "bytes"}
        if wanted:
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else size - int(last)
            end = min(int(last) + 1, size) if first and last else size
            status = "206 Partial Content"
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        await self.head(writer, status, end - start, {**extra, "x-ms-blob-type": "BlockBlob"})
        if method == "GET":
            if self.log:
                self.log.write(f"{'/'.join(path[1:])}\t{start}\t{end}\n")
            with file.open("rb") as opened:
                await asyncio.get_running_loop().sendfile(writer.transport, opened, start, end - start)

    async def head(self, writer: asyncio.StreamWriter, status: str, length: int, headers: dict[str, str]) -> None:
        lines = [f"HTTP/1.1 {status}", f"Content-Length: {length}", "x-ms-version: 2023-11-03", "x-ms-request-id: 0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        await writer.drain()

    def listing(self, container: str, prefix: str) -> str:
        """The XML of List Blobs, all on one page."""
        base = self.folder / container
        files = sorted(p for p in base.rglob("*") if p.is_file())
        blobs = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{formatdate(p.stat().st_mtime, usegmt=True)}"
            f"</Last-Modified><Etag>{escape(etag(p))}</Etag><Content-Length>{p.stat().st_size}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for p in files
            if (name := p.relative_to(base).as_posix()).startswith(prefix)
        )
        return (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{escape(container)}">'
            f"<Prefix>{escape(prefix)}</Prefix><Blobs>{blobs}</Blobs><NextMarker/></EnumerationResults>"
        )


async def main() -> None:
    """Listen on a free loopback port and say which."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.02, help="seconds before each answer")
    parser.add_argument("--log", type=Path)
    arguments = parser.parse_args()
    server = RangeServer(arguments.folder, arguments.delay, arguments.log)
    listening = await asyncio.start_server(server.serve, HOST, 0, limit=1 << 20)
    print(listening.sockets[0].getsockname()[1], flush=True)
    async with listening:
        await listening.serve_forever()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
