"""What pages show: the commands of their sh blocks, word by word, and those named in their sentences."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HISTORY = {"CHANGELOG.md"}
"""Says what commands were called once."""
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"(?:^|(?<=\s))#.*$", re.MULTILINE)
PROGRAMS = ("fabrating", "make", "prefect", "python")
PLACEHOLDERS = {
    "RUN": "top16-d4-s1-0123456789",
    "ARM": "top16-0123456789",
    "SOURCE": "az://raw/fineweb-edu",
    "ID": "00000000-0000-4000-8000-000000000000",
    "SHA256:...": "SHA256:" + "A" * 43,
}
"""What pages write where a person puts something of their own that has a shape."""


def pages() -> list[str]:
    """Every page of the checkout but those of history, by its path below it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    named = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout.splitlines()
    return [name for name in named if name not in HISTORY and (CHECKOUT / name).is_file()]


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page that are in a language."""
    return [text for kind, text in FENCE.findall((CHECKOUT / page).read_text()) if kind == language]


def commands(block: str) -> Iterator[list[str]]:
    """The commands of an sh block that are ours to check, from the program's plain name on."""
    for mark, instance in PLACEHOLDERS.items():
        block = re.sub(rf"(?<![\w]){re.escape(mark)}(?![\w])", instance, block)
    block = COMMENT.sub("", block.replace("\\\n", " "))
    words = shlex.shlex(block, posix=True, punctuation_chars=";&|\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    command: list[str] = []
    for word in [*words, "\n"]:
        if set(word) <= set(";&|\n"):
            yield from _of_ours(command)
            command = []
        else:
            command.append(word)


def _of_ours(words: list[str]) -> Iterator[list[str]]:
    while words and re.match(r"\w+=", words[0]):
        words = words[1:]
    if words[:1] == ["sudo"]:
        words = words[3:] if words[1:2] == ["-u"] else words[1:]
    if words[:2] == ["sh", "-c"]:
        yield from commands(words[2])
    elif words and (program := words[0].rpartition("/")[2]) in PROGRAMS:
        yield [program, *words[1:]]


def named(page: str) -> list[list[str]]:
    """The commands in backticks in a page's sentences. They may lack arguments."""
    text = FENCE.sub("", (CHECKOUT / page).read_text())
    codes = re.findall(r"`(?:\.venv/bin/)?((?:fabrating|prefect|make|python) [^`]+)`", text)
    return [code.replace('"', "").replace("'", "").replace("[", "").replace("]", "").split() for code in codes]
