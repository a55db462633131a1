"""Azurite, Microsoft's emulator of Azure Blob Storage: the object store of the demo and of the tests.

It listens on loopback only and knows one account. A stack gives it a key of its own; without one the key is that which
Microsoft publishes for tests, and any account of the machine can read and write.
"""

import base64
import contextlib
import hashlib
import secrets
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from infra.local.ports import HOST
from tasks.store.azure import EMULATOR

ACCOUNT, PUBLIC_KEY = EMULATOR["accountname"], EMULATOR["accountkey"]
PORT = 10_000
MAIN = Path(__file__).parents[1] / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"


def available() -> bool:
    """Whether Node.js and the installed package are there."""
    return shutil.which("node") is not None and MAIN.is_file()


def command(port: int, folder: Path) -> list[str]:
    """The command line of a server that keeps its data in `folder`."""
    return [
        *(
            shutil.which("node") or "node",
            str(MAIN),
            "--blobHost",
            HOST,
            "--blobPort",
            str(port),
            "--location",
            str(folder),
        ),
        *("--silent", "--skipApiVersionCheck", "--disableTelemetry"),
    ]


def make_key() -> str:
    """A new key for the account."""
    return base64.b64encode(secrets.token_bytes(64)).decode()


def accounts(key: str) -> dict[str, str]:
    """The variable by which a server learns another key than the published one."""
    return {"AZURITE_ACCOUNTS": f"{ACCOUNT}:{key}"}


def connection_string(port: int, key: str = PUBLIC_KEY) -> str:
    """What AZURE_STORAGE_CONNECTION_STRING has to be for this server."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={key};"
        f"BlobEndpoint=http://{HOST}:{port}/{ACCOUNT};"
    )


def answers(port: int) -> bool:
    """Whether a blob service answers on the port (a refusal for want of a signature is an answer)."""
    try:
        with urllib.request.urlopen(f"http://{HOST}:{port}/{ACCOUNT}?comp=list", timeout=2) as reply:
            return "Azurite" in reply.headers.get("Server", "")
    except urllib.error.HTTPError as error:
        return "Azurite" in error.headers.get("Server", "")
    except OSError:
        return False


def upload(port: int, container: str, prefix: str, folder: Path, key: str = PUBLIC_KEY) -> int:
    """Copy the parquet files of a folder into a container, which is made if need be. Returns how many were written.

    A blob with the same MD5 is left alone: writing it again would change its ETag, and with it every artifact's identity.
    """
    from azure.core.exceptions import ResourceExistsError
    from azure.storage.blob import BlobServiceClient, ContentSettings

    client = BlobServiceClient.from_connection_string(connection_string(port, key)).get_container_client(container)
    with contextlib.suppress(ResourceExistsError):
        client.create_container()
    there = {blob.name: bytes(blob.content_settings.content_md5 or b"") for blob in client.list_blobs(prefix)}
    written = 0
    for path in sorted(folder.glob("*.parquet")):
        name, data = f"{prefix}/{path.name}", path.read_bytes()
        digest = hashlib.md5(data, usedforsecurity=False).digest()
        if there.pop(name, None) != digest:
            client.upload_blob(
                name, data, overwrite=True, content_settings=ContentSettings(content_md5=bytearray(digest))
            )
            written += 1
    for stale in there:
        client.delete_blob(stale)
    return written
