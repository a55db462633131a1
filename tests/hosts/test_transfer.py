"""Shards from host to host: directly or relayed, through cuts and damage, complete in the end and no key left behind."""

import contextlib
import itertools
import json
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import DamagedError, InputError
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.machine import Local
from tasks.hosts.ssh import Remote
from tasks.hosts.streams import share_out
from tasks.hosts.transfer import Place, place, transfer
from tasks.store.artifact import FileRecord, Work
from tasks.store.root import Root
from tests.hosts.lab import Host as Machine
from tests.hosts.lab import Lab, parameters

NAME = "arms/top16-0a1b2c3d4e/text"
SHARDS = 10
ROUNDS = 20
MANY = 100_000


@pytest.fixture(scope="session")
def pair(lab: Lab) -> tuple[Machine, Machine]:
    return lab.host("from"), lab.host("to")


def shards(root: Root, size: int) -> Root:
    """An artifact of ten shards of `size` bytes that cannot be compressed, and a file with a space in its name."""

    def make(work: Work) -> None:
        for shard in range(SHARDS):
            name = f"shard_{shard:05d}.parquet"
            work.temporary(name).write_bytes(np.random.default_rng(shard).bytes(size))
            work.finish(name, rows=1)
        work.temporary("notes/a b.txt").write_text("spaces, too")
        work.finish("notes/a b.txt")

    root.build(NAME, make, spec={"size": size})
    return root


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Root:
    """20 MB."""
    return shards(Root(tmp_path_factory.mktemp("root")), 2_000_000)


@pytest.fixture
def places(pair: tuple[Machine, Machine], known: KnownHosts, artifact: Root) -> Iterator[tuple[Place, Place]]:
    """The artifact on the first host, nothing on the second."""
    yield from laid_out(pair, known, artifact)


def laid_out(pair: tuple[Machine, Machine], known: KnownHosts, artifact: Root) -> Iterator[tuple[Place, Place]]:
    source, target = (Remote(parameters(machine), known) for machine in pair)
    with source, target:
        there = place(source, "root")
        transfer(Place(Local(), str(artifact.folder)), there, NAME, streams=2)
        yield there, place(target, "their root")
        source.run('rm -rf "$HOME/root"')
        target.run('rm -rf "$HOME/their root"')


def complete(target: Place, artifact: Root) -> bool:
    """Whether every file on the target has the manifest's SHA-256, and nothing else is there."""
    manifest = artifact.find(NAME)
    folder = target.path(NAME)
    expected = "".join(f"{r.sha256}  ./{r.path}\n" for r in sorted(manifest.files, key=lambda r: r.path))
    seen = target.machine.run(
        'cd "$1" && find . -type f ! -name manifest.json | LC_ALL=C sort | xargs -d "\\n" sha256sum', folder
    ).out
    return seen == expected and json.loads(target.machine.read(f"{folder}/manifest.json"))["name"] == NAME


@pytest.mark.slow
def test_shards_arrive_through_a_cut_link_and_damage(
    pair: tuple[Machine, Machine], known: KnownHosts, tmp_path: Path
) -> None:
    large = shards(Root(tmp_path), 20_000_000)
    [places] = itertools.islice(layout := laid_out(pair, known, large), 1)
    source, target = pair
    half, trouble = threading.Event(), []
    incoming = "their root/arms/top16-0a1b2c3d4e"

    def harm() -> None:
        if not half.wait(60):
            return
        target.cut()
        time.sleep(2)
        target.mend()
        # A byte of a file that is there as a whole: nothing that rsync looks at tells.
        damaged = target.run(
            f'cd "{incoming}"/.text.*.incoming && for f in shard*; do [ "$(stat -c %s $f)" = 20000000 ] && break; done; [ -n "$f" ] && '
            "date=$(stat -c %y $f) && printf X | dd of=$f bs=1 seek=12345678 conv=notrunc status=none && "
            'touch -d "$date" $f && stat -c "%s $f" $f'
        )
        trouble.append(damaged)
        target.run("pkill -u rented -x sshd || pkill -u rented -x sshd-session", user="root")

    def watch(stage: str, done: int, total: int, counters: dict[str, float]) -> None:
        if done > 0.5 * total:
            half.set()

    source.slow(250)
    thread = threading.Thread(target=harm)
    thread.start()
    moved = transfer(*places, NAME, streams=4, progress=watch)
    thread.join()
    assert trouble[0].startswith("20000000 shard_")
    assert complete(places[1], large)
    assert moved.way == "directly"
    assert moved.rounds >= 2
    assert moved.again >= 1
    assert transfer(*places, NAME).way == "already there"
    source.slow(10_000)
    assert list(layout) == []


def test_no_key_stays_behind(pair: tuple[Machine, Machine], places: tuple[Place, Place]) -> None:
    _, target = pair
    target.run("mkdir -p .ssh && printf 'ssh-ed25519 AAAAkept someone' >.ssh/authorized_keys")
    transfer(*places, NAME)
    assert target.run("cat .ssh/authorized_keys") == "ssh-ed25519 AAAAkept someone"
    for machine in pair:
        assert machine.run("grep -rl 'PRIVATE KEY' . /tmp/fabrating-known* 2>/dev/null || true") == ""
        machine.run("rm -rf .ssh")


def test_hosts_that_do_not_reach_each_other_are_relayed(
    lab: Lab, known: KnownHosts, places: tuple[Place, Place], artifact: Root
) -> None:
    apart = lab.host("apart", network=2)
    with Remote(parameters(apart), known) as remote:
        target = place(remote, "root")
        moved = transfer(places[0], target, NAME)
        assert moved.way == "through this machine"
        assert complete(target, artifact)


@pytest.mark.slow
def test_interrupted_transfer_goes_on(
    pair: tuple[Machine, Machine], places: tuple[Place, Place], artifact: Root
) -> None:
    class Killed(Exception):
        pass

    def kill(stage: str, done: int, total: int, counters: dict[str, float]) -> None:
        if done > total / 2:
            raise Killed

    pair[0].slow(40)
    with pytest.raises(Killed):
        transfer(*places, NAME, streams=2, progress=kill)
    pair[0].slow(10_000)
    moved = transfer(*places, NAME, streams=2)
    assert moved.sent < 0.7 * moved.bytes
    assert complete(places[1], artifact)


def test_folder_without_manifest_is_hashed_first(places: tuple[Place, Place], tmp_path: Path) -> None:
    (tmp_path / "raw" / "deep er").mkdir(parents=True)
    (tmp_path / "raw" / "deep er" / "a.parquet").write_bytes(b"abc")
    (tmp_path / "raw" / "-b.parquet").write_bytes(b"")
    here, target = Place(Local(), str(tmp_path)), places[1]
    assert transfer(here, target, "raw").files == 2
    assert transfer(here, target, "raw").way == "already there"
    back = transfer(target, Place(Local(), str(tmp_path / "back")), "raw")
    assert back.sent == 3
    assert (tmp_path / "back" / "raw" / "deep er" / "a.parquet").read_bytes() == b"abc"


def test_what_cannot_work_is_said_in_one_sentence(lab: Lab, known: KnownHosts, places: tuple[Place, Place]) -> None:
    source, target = places
    with pytest.raises(InputError, match=r"has no files in .*/arms/none"):
        transfer(source, target, "arms/none")
    with pytest.raises(InputError, match="not a plain relative path"):
        transfer(source, target, "../outside")
    narrow = Remote(parameters(lab.host("narrow", disk="100m")), known)
    with narrow, pytest.raises(InputError, match=r"narrow .* has 0.1 GB free .* 0.0 GB are to come"):
        transfer(source, place(narrow, "root"), NAME)
    source.machine.run(
        'printf X | dd of="$1/shard_00003.parquet" bs=1 seek=9 conv=notrunc status=none', source.path(NAME)
    )
    try:
        with pytest.raises(DamagedError, match=r"shard_00003.parquet is not what its manifest says: rebuild"):
            transfer(source, target, NAME)
    finally:
        source.machine.run('rm -rf "$1"', source.path(NAME))


def test_a_folder_that_cannot_be_read_whole_is_an_error(places: tuple[Place, Place]) -> None:
    source, target = places
    source.machine.run(
        'cd "$1" && mkdir -p runs/open runs/shut && touch runs/open/a runs/shut/b && chmod 0 runs/shut', source.root
    )
    with pytest.raises(InputError, match=r"cannot list all of .*runs .*Permission denied.*: change the owner"):
        transfer(source, target, "runs")
    source.machine.run('cd "$1" && chmod 700 runs/shut && chmod 0 runs/shut/b', source.root)
    with pytest.raises(InputError, match=r"cannot read .*runs/shut/b: change its owner or mode"):
        transfer(source, target, "runs")
    assert target.machine.run('ls -A "$1"', target.root, check=False).out == ""


def test_a_disk_that_fills_up_in_the_middle_ends_it_at_once(
    lab: Lab, known: KnownHosts, places: tuple[Place, Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.hosts.transfer._check_disk", lambda *_: None)  # somebody else fills it afterwards
    with Remote(parameters(lab.host("filled", disk="12m")), known) as narrow:
        started = time.monotonic()
        with pytest.raises(InputError, match=r"filled .*No space left"):
            transfer(places[0], place(narrow, "root"), NAME)
    assert time.monotonic() - started < 60


def test_a_host_without_rsync_is_named_before_anything_is_sent(
    lab: Lab, known: KnownHosts, places: tuple[Place, Place]
) -> None:
    machine = lab.host("bare")
    machine.run("mount --bind /bin/false /usr/bin/find && mount --bind /dev/null $(command -v rsync)", user="root")
    with (
        Remote(parameters(machine), known) as bare,
        pytest.raises(InputError, match=r"bare .*needs rsync find-of-GNU there: install"),
    ):
        transfer(places[0], place(bare, "root"), NAME)


def test_a_host_that_refuses_agent_forwarding_is_named(
    lab: Lab, known: KnownHosts, places: tuple[Place, Place]
) -> None:
    machine = lab.host("closed", AllowAgentForwarding="no")
    machine.run("mkdir -p root/raw && touch root/raw/a")
    with (
        Remote(parameters(machine), known) as remote,
        pytest.raises(InputError, match=r"closed reaches to neither .*AllowAgentForwarding"),
    ):
        transfer(place(remote, "root"), places[1], "raw")


@pytest.mark.slow
def test_two_hosts_into_one_root_at_once_and_cut_leave_the_union(
    pair: tuple[Machine, Machine], known: KnownHosts, tmp_path: Path
) -> None:
    """Both hosts have a run of their own and shared ones; each is fetched twice at once while cables are pulled."""
    seed = random.randrange(1 << 30)
    print("seed", seed)
    draw = random.Random(seed)
    hosts = list(pair)
    for number in range(ROUNDS):
        folder, expected = tmp_path / str(number), {}
        for host in hosts:
            names = [f"runs/{host.name}/part {part}" for part in range(20)] + ["runs/shared/notes"]
            expected |= {name: f"{name} {number}" for name in names}
        for host in hosts:
            own = [name for name in expected if f"/{host.name}/" in name or "/shared/" in name]
            host.run("rm -rf union; mkdir -p union/runs/shared union/runs/" + host.name)
            host.run(";".join(f"printf '%s' '{expected[name]}' >'union/{name}'" for name in own))
        stop = threading.Event()

        def pull(stop: threading.Event = stop) -> None:
            while not stop.wait(draw.uniform(0.5, 3.0)):
                victim = draw.choice(hosts)
                victim.run("pkill -u rented -x sshd || pkill -u rented -x sshd-session || true", user="root")
                time.sleep(0.5)

        def fetch(host: Machine, folder: Path = folder) -> None:
            for _ in range(20):  # as the task does that was cut
                with contextlib.suppress(ConnectionError), Remote(parameters(host), known) as remote:
                    transfer(place(remote, "union"), Place(Local(), str(folder)), "runs")
                    return
            pytest.fail(f"{host.name} did not get through")

        puller = threading.Thread(target=pull)
        puller.start()
        try:
            with ThreadPoolExecutor() as pool:
                list(pool.map(fetch, [*hosts, *hosts]))
        finally:
            stop.set()
            puller.join()
        found = {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}
        assert found == expected


@pytest.mark.slow
def test_many_small_files_arrive_in_one_round(places: tuple[Place, Place]) -> None:
    """So many that rsync is slower than ssh for a while: whatever stands between them has to wait."""
    source, target = places
    make = "import os; [open(f'{os.makedirs(f, exist_ok=True) or f}/{i}', 'wb').write(os.urandom(1000)) for i in range(%d) for f in [f'd{i %% 100}']]"
    source.machine.run(f'mkdir -p "$1/many" && cd "$1/many" && python3 -c "{make % MANY}"', source.root, timeout=300)
    moved = transfer(source, target, "many")
    assert (moved.files, moved.rounds, moved.again) == (MANY, 1, 0)
    assert target.machine.run('find "$1" -type f | wc -l', target.path("many")).out.strip() == str(MANY)


@given(st.lists(st.integers(0, 10**12), max_size=60), st.integers(1, 16))
def test_files_are_shared_out_evenly(sizes: list[int], streams: int) -> None:
    files = [FileRecord(f"f{i}", size, "") for i, size in enumerate(sizes)]
    groups = share_out(files, streams)
    assert sorted(r.path for g in groups for r in g) == sorted(r.path for r in files)
    assert len(groups) == min(streams, len(files))
    if groups:
        weights = [sum(r.bytes for r in group) for group in groups]
        assert max(weights) <= sum(sizes) / streams + max(sizes)
