"""A stack of its own for comparisons, which take long: beside that of `tests/stack`."""

from tests.stack.conftest import client, parameters, said, stack, taken

__all__ = ["client", "parameters", "said", "stack", "taken"]
