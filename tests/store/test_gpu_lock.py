"""Lock files that everybody on a host can reach."""

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.errors import BusyError, InputError
from tasks.store import locks

NOBODY = 65534


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder such as /tmp, that all accounts may write to."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o1777)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="another account needs root")
@pytest.mark.xfail(
    strict=True,
    raises=AssertionError,
    reason="Two hosts on one root, strangers at the door: a lock is written through another account's symbolic link",
)
def test_a_gpu_lock_never_writes_through_another_accounts_link(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = public / "authorized_keys"
    key.write_text("ssh-ed25519 AAAA owner@laptop")
    key.chmod(0o600)
    monkeypatch.setattr(locks, "GPU_LOCKS", public / "fabrating-locks")
    lock = locks.gpu_lock("GPU-0")
    script = 'mkdir -p "$1" && ln -s "$2" "$3"'
    command = ["sh", "-c", script, "sh", str(lock.parent), str(key), str(lock)]
    subprocess.run(command, check=True, user=NOBODY, group=NOBODY, extra_groups=[])
    with contextlib.suppress(BusyError, InputError), locks.hold(lock, "GPU 0", "top16-d20-s1", patience=1):
        pass
    assert key.read_text() == "ssh-ed25519 AAAA owner@laptop"
