"""Lock files that everybody on a host can reach."""

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tasks.errors import BusyError, InputError
from tasks.store import locks

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="another account needs root")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder such as /tmp, that all accounts may write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


def as_nobody(script: str, *args: Path) -> subprocess.Popen[bytes]:
    command = ["sh", "-c", script, "sh", *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=[])


@pytest.fixture
def lock(public: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(locks, "GPU_LOCKS", public / "fabrating-locks")
    return locks.gpu_lock("GPU-0")


def held(lock: Path) -> AbstractContextManager[int]:
    return locks.hold(lock, "GPU 0", "top16-d20-s1", patience=0)


@pytest.mark.parametrize("planted", ["a link in place of the lock", "a folder that is a link", "a pipe"])
def test_a_gpu_lock_never_writes_through_another_accounts_link(public: Path, lock: Path, planted: str) -> None:
    key = public / "authorized_keys"
    key.write_text("ssh-ed25519 AAAA owner@laptop")
    key.chmod(0o600)
    (public / "elsewhere").mkdir()
    script = {
        "a link in place of the lock": 'mkdir "$1" && ln -s "$2" "$3"',
        "a folder that is a link": 'ln -s "$4" "$1"',
        "a pipe": 'mkdir "$1" && mkfifo "$3"',
    }[planted]
    assert as_nobody(script, lock.parent, key, lock, public / "elsewhere").wait() == 0
    with pytest.raises(InputError, match="is not this account's own folder"), held(lock):
        pass
    assert key.read_text() == "ssh-ed25519 AAAA owner@laptop"
    assert list((public / "elsewhere").iterdir()) == []


def test_a_gpu_that_another_account_uses_is_in_use(public: Path, lock: Path) -> None:
    theirs = public / f"fabrating-locks-{NOBODY}"
    script = 'mkdir "$1" && exec 9>"$2" && flock 9 && echo locked && exec sleep 60'
    other = as_nobody(script, theirs, theirs / lock.name)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"locked\n"
        with pytest.raises(BusyError, match="GPU 0 is in use by another process"), held(lock):
            pass
        with held(locks.gpu_lock("GPU-1")):
            pass
    finally:
        other.kill()
        other.communicate()
    with held(lock):
        assert (lock.parent.stat().st_mode & 0o777, lock.stat().st_mode & 0o777) == (0o755, 0o644)


def test_links_in_other_accounts_folders_lead_nowhere(public: Path, lock: Path) -> None:
    private = public / "private"
    private.touch()
    theirs = public / f"fabrating-locks-{NOBODY}"
    assert as_nobody('mkdir "$1" && ln -s "$2" "$3"', theirs, private, theirs / lock.name).wait() == 0
    with private.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with held(lock):
            assert private.read_text() == ""
