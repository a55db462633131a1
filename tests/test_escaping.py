"""What a host, a file or a document says is shown in logs and pages, and acts on nothing there."""

import html
import io
import logging
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tasks.escaping import markdown, plain, visible

HOSTILE = (
    'Linux <img src="https://example.org/x"> ![a](https://example.org/y) [b](www.example.org) | **c** `d` &#60; \\'
)
ESCAPES = "\x1b[2Jcleared\x1b]0;title\x07\r\n2026-01-01 12:00:00 INFO all is well\x9b31m\u202egnp.exe"
PAGE = MarkdownIt("gfm-like", {"linkify": False})
PIECES = st.text(st.sampled_from("ab 1.\\`*_[](){}<>&;#!|~@:/-+\n")) | st.text()


def shown(page: str) -> tuple[str, set[str]]:
    """What a page of Markdown with a table shows, and its tags."""
    rendered = PAGE.render(page)
    return html.unescape(re.sub(r"<[^>]*>", "", rendered)).strip(), set(re.findall(r"<(\w+)", rendered))


@pytest.mark.parametrize("frame", ["| name |\n| --- |\n| {} |\n", "name\n\n- x{}x\n"], ids=["cell", "list"])
@given(text=PIECES)
@example(text=HOSTILE)
@example(text=ESCAPES)
@settings(deadline=None)  # the machine may be busy
def test_markdown_shows_any_text_as_it_is(frame, text):
    cell = frame.startswith("|")
    found, tags = shown(frame.format(markdown(text)))
    assert found.removeprefix("name").strip() == (plain(text) if cell else f"x{plain(text)}x").strip()
    assert tags <= ({"table", "thead", "tbody", "tr", "th", "td"} if cell else {"p", "ul", "li"})


def test_bare_addresses_are_no_links():
    assert not re.search(r"https?://|www\.|\w@\w", markdown("https://a.example WWW.a.example me@a.example"))


def test_what_moves_the_cursor_or_turns_the_line_is_not_passed_on():
    assert plain(ESCAPES).isprintable() and "cleared" in plain(ESCAPES)
    kept = visible("two\nlines\x1b[2J\u202e\ud800")
    assert kept == "two\nlines\ufffd[2J\ufffd\ufffd"


@pytest.mark.parametrize("name", ["tasks.hosts.transfer", "fabrating", "prefect.flow_runs"])
def test_a_line_of_our_logs_stays_one_line(name):
    written = io.StringIO()
    logger, handler = logging.getLogger(name), logging.StreamHandler(written)
    logger.addHandler(handler)
    try:
        logger.error("%s is a name", ESCAPES)
        try:
            raise ValueError(ESCAPES)
        except ValueError:
            logger.exception("failed")
    finally:
        logger.removeHandler(handler)
    first, _, rest = written.getvalue().partition("\n")
    assert first.isprintable() and first.endswith("gnp.exe is a name")
    assert rest.startswith("failed\nTraceback") and all(c.isprintable() or c == "\n" for c in rest)
