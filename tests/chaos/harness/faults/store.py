"""Trouble with the blob store, and with what lies there."""

import contextlib
import shutil
import signal
import time
from pathlib import Path

from infra.local import azurite
from tasks.store.access import open_blobs
from tasks.store.artifact import MANIFEST, Manifest
from tasks.store.root import Root
from tests.chaos.harness.faults.kind import Harm, kind, send
from tests.chaos.harness.reads import ROOTS


@kind("the store answers 503 for 15 s")
def store_busy(harm: Harm) -> None:
    _store(harm, "refuse", 15)


@kind("the store is away for a minute: 503 to everything")
def store_away(harm: Harm) -> None:
    _store(harm, "refuse", 60)


@kind("half of the connections are reset for 20 s")
def store_resets(harm: Harm) -> None:
    _store(harm, "reset", 20, share=0.5)


@kind("slow reads: 1 to 3 s before and within each answer, for 20 s")
def store_slow(harm: Harm) -> None:
    _store(harm, "slow", 20, seconds=harm.random.uniform(1, 3))


@kind("half of the bodies end short of their Content-Length, for 20 s")
def store_truncates(harm: Harm) -> None:
    _store(harm, "truncate", 20, share=0.5)


@kind("the credential is refused (403, as an expired SAS token) for 10 s")
def store_denies(harm: Harm) -> None:
    _store(harm, "deny", 10)


@kind("a blob is written anew after it was indexed", expected="refused", ended_by="has changed since it was indexed")
def blob_changed(harm: Harm) -> None:
    with harm.rig.proxy.trouble("slow", seconds=0.4):  # time to do it between the index and the text
        harm.run.wait("the index", lambda: "index" in harm.run.stages())
        harm.strike("index complete, text not read")
        _, container, prefix = harm.run.source.replace("://", "/").split("/", 2)
        azurite.upload(harm.rig.blob_port, container, prefix, _other_content(harm), harm.rig.stack.store_key)
        harm.run.wait("its end", lambda: (harm.run.state or {}).get("type") in ("FAILED", "COMPLETED"))


@kind("the packed rows are damaged in the store, and the host's copy of them is lost", in_store=True)
def store_damaged(harm: Harm) -> None:
    run = harm.in_training()
    send(harm.server.processes_of(run) + harm.server.processes_of(harm.run.id), signal.SIGKILL)
    (rows,) = harm.run.made("arms/*/packed/*/rows.bin")
    data = bytearray(rows.read_bytes())
    place = harm.random.randrange(len(data))
    data[place] ^= 1 << harm.random.randrange(8)
    open_blobs(harm.run.url).write(rows.relative_to(harm.run.root).as_posix(), bytes(data))
    shutil.rmtree(rows.parent)
    harm.moment += f", byte {place}"


@kind("kill -9 of a transfer to the store when all has arrived but the manifest")
def transfer_cut(harm: Harm) -> None:
    harm.in_training()
    (manifest,) = harm.run.made(f"arms/*/packed/*/{MANIFEST}")
    name, copy = manifest.parent.relative_to(harm.run.root).as_posix(), f"az://{ROOTS}/{harm.run.root.name}-copy"
    files = {record.path for record in Manifest.from_json(manifest.read_text(), name).files}

    def there() -> set[str]:
        return {blob.name.removeprefix(f"{name}/") for blob in open_blobs(copy).list(name)}

    with harm.rig.proxy.trouble("slow", seconds=3):
        ends = {"source_root": str(harm.run.root), "target_root": copy}
        moving = harm.server.start("transfer/shards", {"names": [name], **ends})
        harm.run.wait("all but the manifest", lambda: there() >= files, 300, pause=0.1)
        send(harm.server.processes_of(moving), signal.SIGKILL)
        if MANIFEST in there():
            raise AssertionError("the transfer was over: nothing was cut")
        harm.strike(f"{len(files)} files sent, no manifest")
    harm.run.wait("the transfer", lambda: harm.ended(moving) == "COMPLETED", 300)
    made = Root(copy, harm.rig.cache("copy")).open(name, checksums=True)
    if (made.path / "rows.bin").read_bytes() != manifest.with_name("rows.bin").read_bytes():
        raise AssertionError(f"{copy}/{name} holds other rows")


def _store(harm: Harm, trouble: str, duration: float, **options: float) -> None:
    """Trouble with the store from a random read of the preparation on; it counts from the first request that meets it."""
    wanted, since = harm.random.randint(1, harm.reads // 2), harm.run.began

    def read_enough() -> bool:
        return sum(answer.at >= since and answer.read is not None for answer in list(harm.rig.proxy.answers)) >= wanted

    harm.run.wait(f"read {wanted}", read_enough, pause=0.01)
    began = time.time()
    with harm.rig.proxy.trouble(trouble, **options):
        with contextlib.suppress(TimeoutError):
            harm.run.wait("a request", lambda: harm.rig.proxy.met(began) or harm.run.child("train"), 30)
        harm.strike(f"read {wanted} of {harm.reads}")
        time.sleep(duration)
    met = len(harm.rig.proxy.met(began))
    harm.moment += f", {met} requests met it"
    if not met:
        raise AssertionError("no request met the trouble: it came too late")


def _other_content(harm: Harm) -> Path:
    """The sample with one file replaced by a copy of another: valid, and not what was indexed."""
    folder = harm.rig.home / "changed"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    files = sorted((harm.rig.home / "sample").rglob("*.parquet"))
    for path in files:
        shutil.copy(path, folder / path.name)
    chosen, other = harm.random.sample(files, 2)
    shutil.copy(other, folder / chosen.name)
    harm.moment += f", {chosen.name}"
    return folder
