"""The report of a host is markdown that a browser shows: a stranger's words in it act on nothing."""

import dataclasses
import re
from typing import Any

import pytest

from tasks.hosts.facts import Facts, Gpu
from tasks.hosts.provision import Outcome, Setup
from tasks.hosts.report import moved, provisioned, removed
from tasks.hosts.ssh import Remote
from tasks.hosts.transfer import Moved
from tasks.spec import Host

HOSTILE = "Linux <img src=https://example.org/x> ![a](https://example.org/y) [b](https://example.org/z) | **c**"
ACTS = re.compile(r"<img|(?<!\\)\]\(https?:|(?<!\\)\*\*c")
PLAIN = {"int": 1, "float": 1.0, "bool": True}


def said_by_a_stranger(kind: type, **given: Any) -> Any:
    """A record whose texts are all hostile."""
    fields = {}
    for field in dataclasses.fields(kind):
        name = getattr(field.type, "__name__", None) or str(field.type)
        fields[field.name] = PLAIN.get(name.split(" | ")[0], () if name.startswith("tuple") else HOSTILE)
    return kind(**fields | given)


HOST = Host(address="127.0.0.1")
FACTS = said_by_a_stranger(Facts, gpus=(said_by_a_stranger(Gpu),), privilege="none", services="systemd")
REPORTS = {
    "provisioned": lambda: provisioned(
        Setup(HOST, Remote(HOST), FACTS, None, {}, {"versions": {"torch": HOSTILE}}),
        [said_by_a_stranger(Outcome)],
        [HOSTILE],
        [],
    ),
    "removed": lambda: removed(HOST, [said_by_a_stranger(Outcome)]),
    "moved": lambda: moved([said_by_a_stranger(Moved)]),
}


@pytest.mark.parametrize("report", REPORTS)
def test_words_of_a_stranger_are_shown_and_do_nothing(report: str) -> None:
    text = REPORTS[report]()
    assert "example.org" in text
    assert ACTS.findall(text) == []
