"""A stack of its own for faults: beside that of `tests/stack`, so that both can be tested at a time."""

from tests.stack.conftest import client, parameters, said, stack, taken

__all__ = ["client", "parameters", "said", "stack", "taken"]
