"""Whole blobs on this machine: faster than ranges where most of their bytes are wanted, or for several passes over a slow link.

azcopy copies where it can, else the store's own client does. azcopy takes its source with a signature in the argument list, which
every user of the machine can read. So it is given a signature of its own, for reading and listing one container and for some hours,
derived from the account's key; where there is none, it logs in by itself (managed identity, `az login`). A SAS token from the
environment is never passed on: the client copies then.
"""

import contextlib
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tasks.errors import ChangedError, InputError
from tasks.store.access import open_blobs
from tasks.store.artifact import has_size, safe_relative, write_atomic
from tasks.store.azure import CONNECTION, KEYS, azure_settings, endpoint_of
from tasks.store.blobs import Blob
from tasks.store.urls import parse_source

HOURS = 24
ETAGS = ".etags.json"
PARTIAL = ".azDownload-"
"""What azcopy calls a file that is not whole."""
PRINCIPAL = {
    "AZURE_TENANT_ID": "AZCOPY_TENANT_ID",
    "AZURE_CLIENT_ID": "AZCOPY_SPA_APPLICATION_ID",
    "AZURE_CLIENT_SECRET": "AZCOPY_SPA_CLIENT_SECRET",
}
"""A service principal in the environment: azcopy has names of its own for it."""
RESERVE = 512 << 20
PARALLEL = 16
"""Blobs that the client copies at a time."""
PACKAGE = "node_modules/@azure-tools"
log = logging.getLogger("fabrating")


def find_azcopy() -> Path | None:
    """azcopy on the PATH, or from the npm package (`@azure-tools/azcopy-linux`) in this folder or `infra`."""
    found = shutil.which("azcopy")
    if found:
        return Path(found)
    for folder in (Path(), Path("infra")):
        for binary in sorted((folder / PACKAGE).glob("azcopy-*/dist/bin/azcopy_*")):
            if not os.access(binary, os.X_OK):
                binary.chmod(binary.stat().st_mode | 0o111)  # the package comes without it
            return binary.absolute()
    return None


def why_not(url: str) -> str | None:
    """Why azcopy cannot copy blobs of `url` here, as half a sentence; None when it can."""
    place = parse_source(url)
    if place.kind != "az":
        return "azcopy copies from az:// alone"
    azcopy = find_azcopy()
    if azcopy is None:
        return "azcopy is not installed"
    fault = _fault(azcopy)
    if fault is not None:
        return f"azcopy does not start ({fault})"
    settings = azure_settings(place)
    if "sas_token" in settings and "account_key" not in settings:
        return "azcopy would show the SAS token to all users of this machine"
    return None


def _fault(azcopy: Path) -> str | None:
    """Why azcopy does not start here, as on a machine without libsecret, which it loads, or of another architecture."""
    try:
        tried = subprocess.run([str(azcopy), "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        return str(error)
    return _last_message(tried.stderr) if tried.returncode else None


def copy_blobs(url: str, blobs: Sequence[Blob], folder: Path) -> list[Blob]:
    """Copy blobs of a URL below `folder`, by azcopy or by the client, and return them as `folder` lists them, in the same order.

    What is there already of the same ETag and size is not copied again. Raises InputError when the disk is too small or azcopy
    fails, ChangedError when a blob does not arrive as it was listed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    etags = _etags(folder)
    missing = [
        b for b in blobs if not (has_size(folder / safe_relative(b.name), b.size) and etags.get(b.name) == b.etag)
    ]
    if missing:
        for blob in missing:
            (folder / safe_relative(blob.name)).unlink(missing_ok=True)
        for left in folder.rglob(f"{PARTIAL}*"):
            left.unlink()
        size, free = sum(b.size for b in missing), shutil.disk_usage(folder).free
        if size + RESERVE > free:
            raise InputError(
                f"Copying {url} needs {size / 1e9:.1f} GB under {folder}, besides {RESERVE / 1e9:.1f} GB that stay free, and {free / 1e9:.1f} GB are free: "
                "make room, or read it with download=ranged."
            )
        # Noted before: azcopy gives a file its name when it is whole, also in a run that is killed then.
        write_atomic(folder / ETAGS, json.dumps(etags | {blob.name: blob.etag for blob in missing}))
        if (reason := why_not(url)) is None:
            _run(url, missing, folder)
        else:
            log.info("%s is copied by the store's client: %s.", url, reason)
            _fetch(url, missing, folder)
    for blob in blobs:
        if not has_size(folder / safe_relative(blob.name), blob.size):
            raise ChangedError(f"{url}/{blob.name} did not arrive as it was listed: run again.")
    local = {blob.name: blob for blob in open_blobs(folder.as_uri()).list()}
    return [local[blob.name] for blob in blobs]


def _etags(folder: Path) -> dict[str, str]:
    """The ETags that the files in `folder` were copied from."""
    with contextlib.suppress(OSError, ValueError):
        return dict(json.loads((folder / ETAGS).read_bytes()))
    return {}


def _fetch(url: str, blobs: Sequence[Blob], folder: Path) -> None:
    store = open_blobs(url)

    def one(blob: Blob) -> None:
        path = folder / safe_relative(blob.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        store.copy(blob, path)

    with ThreadPoolExecutor(PARALLEL) as threads:
        list(threads.map(one, blobs))


def _run(url: str, blobs: Sequence[Blob], folder: Path) -> None:
    place = parse_source(url)
    settings = azure_settings(place)
    parts = (endpoint_of(settings), quote(place.container), quote(place.folder))
    source = "/".join(part.strip("/") for part in parts if part.strip("/"))
    shutil.rmtree(folder / ".azcopy", ignore_errors=True)  # of a run that was killed
    environment = os.environ | {
        "AZCOPY_DOWNLOAD_TO_TEMP_PATH": "true",
        "AZCOPY_LOG_LOCATION": str(folder / ".azcopy"),
        "AZCOPY_JOB_PLAN_LOCATION": str(folder / ".azcopy"),
    }
    for name in (CONNECTION, *KEYS):
        environment.pop(name, None)
    if "account_key" in settings:
        source += "?" + _signature(settings, place.container)
    else:
        principal = {ours: os.environ.get(name, "") for name, ours in PRINCIPAL.items()}
        environment |= {"AZCOPY_AUTO_LOGIN_TYPE": "SPN", **principal} if all(principal.values()) else {}
        environment.setdefault("AZCOPY_AUTO_LOGIN_TYPE", "AZCLI")
    names = folder / ".azcopy.files"
    names.write_text("".join(f"{blob.name}\n" for blob in blobs))
    command = [
        *(str(find_azcopy()), "copy", source, str(folder), "--from-to", "BlobLocal", "--list-of-files", str(names)),
        *("--as-subdir=false", "--overwrite", "true", "--skip-version-check"),
        *("--output-type", "json", "--output-level", "essential"),
    ]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    names.unlink()
    shutil.rmtree(folder / ".azcopy", ignore_errors=True)
    if ended.returncode:
        said = _last_message(ended.stdout, ended.stderr)
        raise InputError(f"azcopy could not copy {url} ({said}): or use download=ranged.")


def _signature(settings: dict[str, str], container: str) -> str:
    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    return generate_container_sas(
        settings["account_name"],
        container,
        account_key=settings["account_key"],
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=HOURS),
    )


def _end_of_job(job: dict[str, Any]) -> str:
    """A job's summary in words: its error, or how many files failed and the first of them."""
    if job.get("ErrorMsg"):
        return str(job["ErrorMsg"])
    failed = job.get("FailedTransfers") or []
    if not failed:
        return f"the job ended as {job['JobStatus']}"
    name = str(failed[0]["Src"]).split("?", 1)[0].rpartition("/")[2]
    return f"{job['TransfersFailed']} of {job['TotalTransfers']} files failed, the first, {name}, with status {failed[0]['ErrorCode']}"


def _last_message(*outputs: str) -> str:
    """The last thing that azcopy, or the loader in its place, said, without signatures."""
    for line in (line for output in outputs for line in reversed(output.splitlines()) if line.strip()):
        try:
            content = json.loads(line).get("MessageContent", "")
        except (ValueError, AttributeError):
            content = line
        with contextlib.suppress(ValueError, AttributeError, LookupError, TypeError):
            content = _end_of_job(json.loads(content))
        return quote(content.split("?", 1)[0][:200], safe=" :/.,()'=-@")
    return "it gave no reason"
