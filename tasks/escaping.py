"""Words of others (hosts, files, documents, blobs, columns) on their way into what people read: shown, and acting on nothing.

One function for each medium, called where the text enters it: `plain` for a line of a log or a terminal, `visible` for running
text of a page or a terminal, `markdown` for the Prefect UI. Tags are left to the templates' own escaping.
"""

import logging
import re
import traceback
from typing import Any
from unicodedata import category

DIRECTIONS = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
ACTING = re.compile(r"[&<>\\`*_\[\]!#|~@]|:(?=//)|(?<=www)\.", re.IGNORECASE)
"""What Markdown or HTML act on, bare addresses among them. The UI knows backslashes and these entities, no numeric ones."""
LOGGERS = ("tasks", "flows", "infra", "fabrating", "prefect.flow_runs", "prefect.task_runs", "__main__")


def plain(text: object) -> str:
    """One line without control characters, escape sequences or changes of writing direction: each becomes a space."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def visible(text: object) -> str:
    """Text that keeps its lines and tabs. What acts instead of being seen, and lone surrogates, become U+FFFD."""
    return "".join(
        "\ufffd" if (category(c) in ("Cc", "Cs") and c not in "\n\t") or c in DIRECTIONS else c for c in str(text)
    )


def markdown(text: object) -> str:
    """One line of Markdown that shows the text as it is, in a table's cell too, but not between backticks."""
    return ACTING.sub(lambda found: ENTITIES.get(found[0], "\\" + found[0]), plain(text))


class _Line(logging.LogRecord):
    """A record of our loggers is one line, and its traceback is visible text."""

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, **options)
        if self._is_ours and self.exc_info:
            self.exc_text = visible("".join(traceback.format_exception(*self.exc_info))).rstrip("\n")

    @property
    def _is_ours(self) -> bool:
        return self.name.startswith(LOGGERS)

    def getMessage(self) -> str:
        said = super().getMessage()
        return plain(said) if self._is_ours else said


def log_in_lines() -> None:
    """From now on `plain` is applied to whatever this project's loggers, and those of its Prefect runs, are given."""
    logging.setLogRecordFactory(_Line)
