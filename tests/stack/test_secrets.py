"""The secrets of the runs before this test: each is where it must be, and nowhere else."""

import os
import sqlite3

import pytest

from infra.local import processes

pytestmark = pytest.mark.stack


def test_secrets_are_nowhere_but_in_their_own_files_and_the_environment(stack, client, tmp_path):
    secrets = {"password": stack.password.partition(":")[2]}
    if stack.azurite_port:
        secrets["azurite.key"] = stack.store_key
    allowed = {str(stack.home / name) for name in (*secrets, "env")}
    with sqlite3.connect(stack.home / "prefect" / "prefect.db") as server, sqlite3.connect(tmp_path / "db") as copy:
        server.backup(copy)  # with what is still in the write-ahead log
    assert b"reaper" in (tmp_path / "db").read_bytes()
    found = []
    for folder, below, files in os.walk(stack.home.parent):  # roots of the other tests in this process among them
        below[:] = [name for name in below if not (name == "azurite" and folder == str(stack.home))]
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118
            if path not in allowed and os.path.isfile(path):  # noqa: PTH113
                with open(path, "rb") as file:  # noqa: PTH123
                    content = file.read()
                found += [(name, path) for name, value in secrets.items() if value.encode() in content]
    assert found == []
    commands = [" ".join(process.cmdline()) for process in processes.members(stack.mark)]
    assert len(commands) > 3
    assert [line for line in commands for value in secrets.values() if value in line] == []
