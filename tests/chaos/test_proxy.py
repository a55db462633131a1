"""The proxy in front of a real Azurite: what the product's reader of blobs makes of each trouble."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local import azurite
from tasks.errors import ChangedError, DeniedError, InputError, StoreError
from tasks.store.access import open_blobs
from tasks.store.blobs import Blob, Blobs
from tests.chaos.harness.proxy import Proxy
from tests.waiting import within


@pytest.fixture
def proxy(azurite_port: int, sample: Path) -> Iterator[Proxy]:
    """A proxy before the Azurite of this test session, which holds the sample."""
    azurite.upload(azurite_port, "chaos", "docs", sample)
    made = Proxy(azurite_port, seed=1)
    made.start()
    yield made
    made.close()


@pytest.fixture
def blobs(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Blobs:
    """The sample as it is seen through the proxy; a request that fails is tried again at once."""
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(proxy.port))
    monkeypatch.setattr("tasks.store.blobs.time.sleep", lambda seconds: None)
    monkeypatch.setattr("tasks.store.access.RETRIES", {"max_retries": 6})
    return open_blobs("az://chaos/docs")


@pytest.fixture
def first(blobs: Blobs) -> Blob:
    return blobs.list()[0]


def read(blobs: Blobs, blob: Blob) -> bytes:
    return bytes(blobs.read_range(blob, 100, 5_000))


def test_it_hands_on_what_the_store_says(proxy, blobs, first, sample):
    data = (sample / first.name).read_bytes()
    assert first.size == len(data)
    assert read(blobs, first) == data[100:5_000]
    within(10, lambda: any(answer.read for answer in proxy.answers))  # noted once it is sent
    delivered = [answer.read for answer in proxy.answers if answer.read]
    assert delivered == [(f"/{azurite.ACCOUNT}/chaos/docs/{first.name}", 100, 5_000)]
    assert proxy.met() == []


def test_writing_goes_through_too(blobs):
    blobs.write("new/one.txt", b"some text")
    assert blobs.read_if_exists("new/one.txt") == b"some text"
    blobs.delete("new/one.txt")
    assert blobs.read_if_exists("new/one.txt") is None


@pytest.mark.parametrize(("kind", "seconds"), [("refuse", 0.0), ("reset", 0.0), ("truncate", 0.0), ("slow", 0.2)])
def test_what_passes_is_tried_again_until_the_bytes_are_right(proxy, blobs, first, sample, kind, seconds):
    with proxy.trouble(kind, share=0.5, seconds=seconds):
        found = [read(blobs, first) for _ in range(6)]
    assert set(found) == {(sample / first.name).read_bytes()[100:5_000]}
    assert {answer.trouble for answer in proxy.met()} == {kind}


def test_bytes_that_never_come_whole_are_an_error_and_no_data(proxy, blobs, first):
    with proxy.trouble("truncate"), pytest.raises(StoreError, match=first.name):
        read(blobs, first)
    assert not any(answer.whole for answer in proxy.met())
    assert not any(answer.read for answer in proxy.answers)


def test_another_etag_is_a_changed_blob(proxy, blobs, first):
    with proxy.trouble("change"), pytest.raises(ChangedError, match=f"{first.name} has changed"):
        read(blobs, first)


@pytest.mark.parametrize(("kind", "error"), [("deny", DeniedError), ("refuse", StoreError)])
def test_a_listing_says_whether_to_wait_or_to_change_something(proxy, monkeypatch, kind, error):
    """What is told apart decides whether a run is set going again."""
    monkeypatch.setattr("tasks.store.access.RETRIES", {"max_retries": 1})
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string(proxy.port))
    with proxy.trouble(kind), pytest.raises(error, match="az://chaos/docs cannot be listed"):
        open_blobs("az://chaos/docs").list()
    with pytest.raises(InputError, match=r"status 404.*check the URL"):
        open_blobs("az://no-such-container/docs").list()


def test_an_expired_credential_is_named(proxy, blobs, first):
    with proxy.trouble("deny"), pytest.raises(DeniedError, match="renew the credentials"):
        read(blobs, first)
    assert [answer.status for answer in proxy.met()] == [403]
