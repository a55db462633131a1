"""The key of the store that the runs before this one read from: where it must be, and nowhere else."""

import os

import pytest

from infra.local import azurite, processes

pytestmark = pytest.mark.stack


def test_the_storage_key_is_nowhere_but_in_the_environment(stack):
    if not stack.azurite_port:
        pytest.skip("the stack has no Azurite: its data lies in a folder")
    key, found = azurite.PUBLIC_KEY.encode(), []
    assert (stack.home / "env").stat().st_mode & 0o077 == 0
    for folder, below, files in os.walk(stack.home.parent):  # roots of the other tests in this process among them
        below[:] = [name for name in below if not (name == "azurite" and folder == str(stack.home))]
        for name in files:
            path = os.path.join(folder, name)  # noqa: PTH118
            if path != str(stack.home / "env") and os.path.isfile(path):  # noqa: PTH113
                with open(path, "rb") as file:  # noqa: PTH123
                    if key in file.read():
                        found.append(path)
    assert found == []
    assert [
        process.pid for process in processes.members(stack.mark) if key.decode() in " ".join(process.cmdline())
    ] == []
