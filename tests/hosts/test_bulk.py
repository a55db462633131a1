"""Artifacts to and from the blob store: complete, verified, continued."""

import shutil
from pathlib import Path

import pytest

from infra.local import azurite
from tasks.errors import DamagedError, InputError
from tasks.hosts.bulk import fetch, main, send
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import Local
from tasks.hosts.service import environment_file
from tasks.hosts.ssh import Remote
from tasks.hosts.transfer import move
from tasks.store.access import open_blobs
from tasks.store.artifact import Work
from tasks.store.blobs import Blobs
from tasks.store.mirror import Mirror
from tasks.store.root import Root
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import Lab, parameters

NAME = "pools/p-0000000000/index"


@pytest.fixture
def root(tmp_path: Path) -> Root:
    made = Root(tmp_path / "ours")

    def make(work: Work) -> None:
        for name in ("a.parquet", "deep/b c.parquet"):
            work.temporary(name).write_bytes(name.encode() * 1000)
            work.finish(name)

    made.build(NAME, make, spec={})
    return made


@pytest.fixture
def store(tmp_path: Path) -> str:
    (tmp_path / "store").mkdir()
    return (tmp_path / "store").as_uri()


def test_artifact_goes_up_and_comes_down(root: Root, store: str, tmp_path: Path) -> None:
    sent = send(store, NAME, root.folder)
    assert sent["sent"] == sent["bytes"] == 9000 + 16000
    assert send(store, NAME, root.folder)["way"] == "already there"
    got = fetch(store, NAME, tmp_path / "theirs")
    assert got["sent"] == sent["bytes"]
    assert Root(tmp_path / "theirs").open(NAME, checksums=True).fingerprint == root.open(NAME).fingerprint
    assert fetch(store, NAME, tmp_path / "theirs")["way"] == "already there"


def test_cut_fetch_goes_on_and_replaces_what_is_wrong(root: Root, store: str, tmp_path: Path) -> None:
    send(store, NAME, root.folder)
    incoming = tmp_path / "theirs" / "pools" / "p-0000000000" / ".index.incoming"
    incoming.mkdir(parents=True)
    shutil.copy(root.path(NAME) / "a.parquet", incoming / "a.parquet")
    (incoming / "deep").mkdir()
    (incoming / "deep" / "b c.parquet").write_bytes(b"x" * 16000)
    assert fetch(store, NAME, tmp_path / "theirs")["sent"] == 16000
    Root(tmp_path / "theirs").open(NAME, checksums=True)


@pytest.mark.parametrize(("shared", "sent"), [(b"deep/b c.parquet", 9000), (b"DEEP/B C.PARQUET", 25000)])
def test_a_send_replaces_other_content_of_the_same_size(
    root: Root, store: str, tmp_path: Path, shared: bytes, sent: int
) -> None:
    """What both have in common stays, unless it was damaged in the store, at equal size."""
    send(store, NAME, root.folder)
    (tmp_path / "store" / NAME / "deep/b c.parquet").write_bytes(shared * 1000)
    other = Root(tmp_path / "remade")

    def make(work: Work) -> None:
        for name, text in {"a.parquet": b"A.parquet", "deep/b c.parquet": b"deep/b c.parquet"}.items():
            work.temporary(name).write_bytes(text * 1000)
            work.finish(name)

    other.build(NAME, make, spec={})
    assert send(store, NAME, other.folder)["sent"] == sent
    fetch(store, NAME, tmp_path / "theirs")
    assert (tmp_path / "theirs" / NAME / "a.parquet").read_bytes() == b"A.parquet" * 1000


def test_a_send_that_was_cut_goes_on_without_a_manifest_of_something_else(
    root: Root, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "store" / NAME
    (folder / "deep").mkdir(parents=True)
    (folder / "deep/b c.parquet").write_bytes(b"x" * 16000)  # of the right size
    (folder / "manifest.json").write_text("{}")
    upload = Blobs.upload

    def cut(blobs: Blobs, path: Path, name: str) -> str:
        if path.name == "b c.parquet":
            raise ConnectionError("cut")
        return upload(blobs, path, name)

    with monkeypatch.context() as broken, pytest.raises(ConnectionError):
        broken.setattr(Blobs, "upload", cut)
        send(store, NAME, root.folder)
    assert not (folder / "manifest.json").exists()
    assert send(store, NAME, root.folder)["sent"] == 16000
    assert [path.name for path in root.path(NAME).parent.glob(".*.sent")] == []
    fetch(store, NAME, tmp_path / "theirs")
    Root(tmp_path / "theirs").open(NAME, checksums=True)


def test_a_cut_line_of_what_objects_hold_hides_no_other(root: Root, store: str, tmp_path: Path) -> None:
    known, manifest, blobs = tmp_path / "known.jsonl", root.manifest(NAME), open_blobs(store)
    known.write_text('["a.parq')
    mirror = Mirror(blobs, NAME, known)
    assert mirror.upload(root.path(NAME), manifest, lambda: None) == 25000
    mirror.discard()
    assert mirror.upload(root.path(NAME), manifest, lambda: None) == 0


def test_damage_and_absence_are_named(
    root: Root, store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(InputError, match="no complete artifact"):
        fetch(store, NAME, tmp_path / "theirs")
    assert main(["fetch", store, NAME, str(tmp_path / "theirs")]) == 66
    assert "no complete artifact" in capsys.readouterr().err
    send(store, NAME, root.folder)
    (tmp_path / "store" / NAME / "a.parquet").write_bytes(b"y" * 9000)
    with pytest.raises(DamagedError, match=r"a\.parquet is not what its manifest says"):
        fetch(store, NAME, tmp_path / "theirs")
    (root.path(NAME) / "a.parquet").write_bytes(b"z" * 9000)
    with pytest.raises(DamagedError, match=r"a\.parquet has another SHA-256"):
        send(store, NAME + "", root.folder)
    with pytest.raises(InputError, match="both blob stores"):
        move(Local(), "az://a/b", Local(), "az://c/d", NAME)


def test_host_fetches_and_sends_by_itself(
    lab: Lab, known: KnownHosts, root: Root, azurite_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host runs the copy next to its own disk, with its own secrets."""
    settings = {"AZURE_STORAGE_CONNECTION_STRING": azurite.connection_string(azurite_port)}
    with monkeypatch.context() as ours:
        ours.setenv(*next(iter(settings.items())))
        azurite.upload(azurite_port, "hosts", "", root.folder)  # makes the container
        send("az://hosts/kept", NAME, root.folder)
    machine = lab.host("fetcher", network=0)
    host = parameters(machine)
    with Remote(host, known) as remote:
        with pytest.raises(InputError, match=r"has no worker in .*fab rating.* run gpu-host"):
            move(Local(), "az://hosts/kept", remote, "kept", NAME)
        folder = f"{machine.home}/fab rating"
        remote.run('mkdir -p "$1/venv/bin"', folder)
        remote.put(environment_file(settings), f"{folder}/secrets.env")
        python = (
            f'#!/bin/sh\nPYTHONPATH="{Path(__file__).parents[2]}" exec "{host.python_environment}/bin/python" "$@"\n'
        )
        remote.put(python, f"{folder}/venv/bin/python", 0o755)
        moved = move(Local(), "az://hosts/kept", remote, f"{host.folder}/root", NAME)
        assert moved.sent == 25000
        assert remote.read(f"{folder}/root/{NAME}/manifest.json") == (root.path(NAME) / "manifest.json").read_text()
        moved = move(remote, f"{host.folder}/root", Local(), "az://hosts/again", NAME)
        assert (moved.sent, moved.way) == (25000, "object store client")
        with pytest.raises(InputError, match=r"fetcher .*no complete artifact pools/none"):
            move(Local(), "az://hosts/kept", remote, f"{host.folder}/root", "pools/none")


def test_file_url_is_a_folder_of_its_machine(
    machine: Machine, remote: Remote, root: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = (Path(machine.home) / "a root").as_uri()
    moved = move(Local(), root.url, remote, theirs, NAME)
    assert (moved.way, moved.sent) == ("from here", 25000)
    assert move(Local(), root.url, remote, "a root", NAME).way == "already there"
    assert move(Local(), root.url, remote, "~/a root", NAME).way == "already there"
    monkeypatch.chdir(tmp_path)
    assert move(remote, theirs, Local(), "back", NAME).way == "to here"
    assert Root(tmp_path / "back").open(NAME, checksums=True).fingerprint == root.open(NAME).fingerprint
    with pytest.raises(InputError, match="scheme 'ftp'"):
        move(remote, "ftp://somewhere/else", Local(), "back", NAME)
    remote.run('rm -rf "$HOME/a root"')


def test_default_root_is_what_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a host, where the worker starts in the folder of our package."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FABRATING_ROOT", str(tmp_path / "theirs"))
    assert Root().folder == tmp_path / "theirs"
    assert Root(".fabrating/root").folder == tmp_path / "theirs"
    assert Root("other").folder == tmp_path / "other"
    monkeypatch.delenv("FABRATING_ROOT")
    assert Root().folder == tmp_path / ".fabrating" / "root"
