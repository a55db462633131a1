"""A lease on the root: one holder, a number that rises, and a holder that was succeeded finds out before it publishes."""

import threading
from pathlib import Path

import pytest

from tasks.errors import BusyError, SupersededError
from tasks.store.access import open_blobs
from tasks.store.blobs import Blobs
from tasks.store.lease import Lease
from tests.waiting import within

NAME, WHAT = "runs/r/.lease", "The run r"
LONG = 60.0


@pytest.fixture(params=["file", "azure", "s3", "gs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    if request.param == "azure":
        return open_blobs(f"az://{request.getfixturevalue('azure')}/root")
    if request.param != "file":
        return open_blobs(f"{request.getfixturevalue('bucket')(request.param)}/root")
    (tmp_path / "root").mkdir()
    return open_blobs((tmp_path / "root").as_uri())


@pytest.fixture
def host(store: Blobs, tmp_path: Path):
    """Makes a lease of a host by the host's name."""

    def make(name: str) -> Lease:
        (tmp_path / name).mkdir(exist_ok=True)
        return Lease(store, NAME, WHAT, tmp_path / name)

    return make


def test_of_hosts_that_take_it_at_once_one_does(host) -> None:
    first = host("gone")
    first.take(0, LONG)
    first._release()
    taken, busy = [], []

    def take(lease: Lease) -> None:
        try:
            lease.take(0, LONG)
            with lease.kept(0.1):
                taken.append(lease.number)
                done.wait(20)
        except BusyError as error:
            busy.append(str(error))

    done = threading.Event()
    threads = [threading.Thread(target=take, args=(host(f"host{number}"),)) for number in range(4)]
    for thread in threads:
        thread.start()
    within(20, lambda: len(busy) == 3)
    done.set()
    for thread in threads:
        thread.join()
    assert taken == [2]
    assert len(busy) == 3 and all("The run r is in use by process" in one for one in busy)


def test_it_is_free_at_once_when_it_was_released_or_its_holder_was_on_this_host(host) -> None:
    first, again, other = host("a"), host("a"), host("b")
    first.take(0, LONG)
    again.take(0, LONG)  # the caller's lock says that the first is gone
    with pytest.raises(SupersededError):
        first.check()
    with again.kept(LONG):
        again.check()
    other.take(0, LONG)
    assert (first.number, again.number, other.number) == (1, 2, 3)


def test_a_holder_that_does_not_renew_is_succeeded_and_finds_out(host, store: Blobs) -> None:
    cut_off, other = host("a"), host("b")
    cut_off.take(0, LONG)
    cut_off.require()
    other.take(0, 1.0)
    with pytest.raises(SupersededError, match=r"The run r was taken over by process \d+ on .*: this attempt stops"):
        cut_off.check()
    with pytest.raises(SupersededError):
        cut_off.require()
    other.check()
    assert [blob.name for blob in store.list(f"{NAME}/")] == [f"{NAME}/{number:06d}.json" for number in (1, 2)]
