"""A transfer's key in the target's authorized_keys: it comes and goes, and the owner's keys stay."""

import contextlib
import shutil
import threading
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.hosts.bridge import ADMIT, FORGET
from tasks.hosts.machine import CommandError, Local

OWNER = "ssh-ed25519 AAAAOWNER owner@laptop\n"
TOGETHER = 4


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The authorized_keys of an account of our own, with its owner's key."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir(mode=0o700)
    file = tmp_path / ".ssh/authorized_keys"
    file.write_text(OWNER)
    return file


def test_a_key_is_admitted_and_forgotten(keys: Path) -> None:
    Local().run(ADMIT, "restrict ssh-ed25519 AAAAKEY fabrating-transfer")
    assert keys.read_text() == f"{OWNER}restrict ssh-ed25519 AAAAKEY fabrating-transfer\n"
    Local().run(FORGET, "AAAAKEY")
    assert keys.read_text() == OWNER


def test_a_full_disk_costs_no_key(keys: Path) -> None:
    Local().run(ADMIT, "ssh-ed25519 AAAAKEY fabrating-transfer")
    with contextlib.suppress(CommandError, InputError):
        Local().run(f"ulimit -f 0\n{FORGET}", "AAAAKEY")  # no file may grow, as on a full disk
    assert keys.read_text().startswith(OWNER)


def test_transfers_that_end_together_leave_what_was_there(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(TOGETHER):
        Local().run(ADMIT, f"ssh-ed25519 AAAAKEY{number} fabrating-transfer")
    slow = tmp_path / "slow machine"
    slow.mkdir()
    for tool in ("awk", "cat", "cp", "grep", "mv", "sed"):
        if path := shutil.which(tool):
            (slow / tool).write_text(f'#!/bin/sh\nsleep 0.1\nexec {path} "$@"\n')
            (slow / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(slow), prepend=":")
    failed: list[CommandError] = []

    def forget(number: int) -> None:
        try:
            Local().run(FORGET, f"AAAAKEY{number}")
        except CommandError as error:
            failed.append(error)

    threads = [threading.Thread(target=forget, args=(number,)) for number in range(TOGETHER)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (keys.read_text(), failed) == (OWNER, [])


def test_a_file_that_is_linked_to_keeps_its_place_and_its_mode(keys: Path, tmp_path: Path) -> None:
    real = tmp_path / "keys of all machines"
    keys.rename(real)
    real.chmod(0o640)
    keys.symlink_to(real)
    Local().run(ADMIT, "ssh-ed25519 AAAAKEY fabrating-transfer")
    assert "AAAAKEY" in real.read_text()
    Local().run(FORGET, "AAAAKEY")
    assert (keys.is_symlink(), real.read_text(), real.stat().st_mode & 0o777) == (True, OWNER, 0o640)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [real.name]
