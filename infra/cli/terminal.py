"""What the `fabrating` command prints: bars and tables for people, JSON for programs, one sentence for what went wrong."""

import contextlib
import io
import json
import logging
import math
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import ValidationError
from rich.cells import cell_len
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from tasks.errors import (
    BusyError,
    ChangedError,
    DamagedError,
    DiskError,
    InputError,
    InterruptedRun,
    LostProcessError,
    StoreError,
    TrainingError,
    disk_fault,
)
from tasks.escaping import plain, visible
from tasks.progress import Evaluations, Progress
from tasks.spec.faults import faults

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from tasks.reports.live import Standing

NUMBER = re.compile(r"[-+−–$]?[\d,.]*( ?%)?")
"""A value that stands to the right of its column; a dash for what is not known is one."""
EXPECTED = (InputError, DamagedError, ChangedError, BusyError, TrainingError, StoreError, DiskError)
INTERRUPTED = 75  # EX_TEMPFAIL: run the same command again to resume

# A pipe has no width: nothing is cut there.
out = Console(soft_wrap=True) if sys.stdout and sys.stdout.isatty() else Console(soft_wrap=True, width=400)
err = Console(stderr=True, soft_wrap=True)


class Output(io.FileIO):
    """Standard output that says so when it cannot be written: its errors name no file, as those of the root may. Says it once."""

    lost = False

    def write(self, data: "ReadableBuffer", /) -> int:
        if self.lost:  # what is flushed at exit, after the sentence
            return memoryview(data).nbytes
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            self.lost = True
            raise InputError(
                f"The output cannot be written ({error.strerror}): send it elsewhere or make room for it, then run the same command again."
            ) from error


def name_the_output() -> None:
    """Let what cannot be written to standard output raise InputError, as `Output` does."""
    if (was := sys.stdout) is not None:
        buffer = io.BufferedWriter(Output(was.fileno(), "wb", closefd=False))
        at_once = bool(was.line_buffering or was.write_through)  # type: ignore[union-attr]
        sys.stdout = io.TextIOWrapper(buffer, was.encoding, was.errors, line_buffering=at_once)


def say(message: str, on: Console = out) -> None:
    """Print a line for a person, as it is, above what is drawn there."""
    on.print(plain(message), markup=False, highlight=False)


class _Said(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage(), err)


@contextlib.contextmanager
def telling() -> Iterator[None]:
    """Print what the work tells meanwhile on stderr: for whom it waits, and where its log is."""
    told, handler = logging.getLogger("tasks"), _Said(logging.INFO)
    level = told.level
    told.addHandler(handler)
    told.setLevel(logging.INFO)
    try:
        yield
    finally:
        told.setLevel(level)
        told.removeHandler(handler)


def evaluations(run: str = "") -> Progress:
    """A `Progress` that prints a line at each evaluation of a training."""
    found = Evaluations()

    def progress(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
        if evaluated := found.news(done, total, counters):
            say(f"{run}: {evaluated}" if run else evaluated, err)

    return progress


@contextlib.contextmanager
def updating() -> Iterator[Callable[["Standing"], None]]:
    """A table of runs that is drawn anew in its place on a terminal; elsewhere a line whenever the state of a run has changed."""
    if not err.is_terminal:
        states: list[Any] = []

        def tell(now: "Standing") -> None:
            if (found := [row["state"] for row in now.rows]) != states:
                states[:] = found
                say(now.summary, err)

        yield tell
        return
    with Live(console=err, auto_refresh=False) as live:
        yield lambda now: live.update(Group(grid(now.rows), now.summary), refresh=True)


@contextlib.contextmanager
def bars() -> Iterator[Progress]:
    """A `Progress` that draws one bar per stage on a terminal, and prints a line at each evaluation there and elsewhere."""
    lines = evaluations()
    if not err.is_terminal:
        yield lines
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=err) as shown:
        stages: dict[str, Any] = {}

        def progress(stage: str, done: int, total: int, counters: Mapping[str, float]) -> None:
            lines(stage, done, total, counters)
            if stage not in stages:
                stages[stage] = shown.add_task(_cell(stage), total=total)
            shown.update(stages[stage], completed=done, total=total)

        yield progress


def show(value: Mapping[str, Any] | Sequence[Any], as_json: bool) -> None:
    """Print a mapping as JSON or as lines of name and value; what has rows of its own becomes a table below them."""
    if as_json:
        _print_json(value)
        return
    lines: dict[str, str] = {}
    below: dict[str, list[dict[str, Any]]] = {}
    for name, field in value.items() if isinstance(value, Mapping) else enumerate(value):
        if rows := _rows(field):
            below[str(name)] = rows
        else:
            lines[plain(text(name))] = plain(text(field))
    indent = max(map(cell_len, lines), default=0) + 3
    for name, line in lines.items():
        _print(f" {name}{' ' * (indent - 1 - cell_len(name))}{_wrapped(line, indent)}")
    for name, rows in below.items():
        out.print(f"\n[bold]{_cell(name)}[/bold]", highlight=False)
        show_rows(rows, False)


def _print_json(value: Any) -> None:
    """A number that is not finite is null: other parsers than Python's refuse NaN and Infinity."""
    print(json.dumps(_finite(value), indent=1, default=str, allow_nan=False))


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _wrapped(line: str, indent: int) -> str:
    """A value of several words, broken between them on a terminal; paths and URLs stay whole, so that they can be copied."""
    if not out.is_terminal or indent + cell_len(line) <= out.width:
        return line
    room = max(20, out.width - indent)
    words = textwrap.wrap(line, room, break_long_words=False, break_on_hyphens=False)
    return f"\n{' ' * indent}".join(words)


def _print(line: str) -> None:
    out.print(line, markup=False, highlight=False, soft_wrap=True)


def show_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """Print rows as JSON or as a table; columns without any value are left out. Nothing is cut: a table may be wider than the terminal."""
    if as_json:
        _print_json(list(rows))
        return
    table, width = grid(rows), out.width
    out.width = max(width, out.measure(table, options=out.options.update(width=10_000)).maximum)
    try:
        out.print(table)
    finally:
        out.width = width


def grid(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Rows as a table without lines, numbers to the right; columns without any value are left out."""
    names = dict.fromkeys(name for row in rows for name in row)
    columns = [name for name in names if any(row.get(name) is not None for row in rows)]
    table = Table(box=None, pad_edge=False)
    for name in columns:
        numbers = all(NUMBER.fullmatch(text(row.get(name))) for row in rows)
        table.add_column(_cell(name), justify="right" if numbers else "left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    return table


def _cell(value: Any) -> str:
    """A value as Rich shows it on one line, without acting on it."""
    return escape(plain(text(value)))


def _rows(value: Any, name: str = "") -> list[dict[str, Any]]:
    """Mappings in a list, or under names, or in lists under names, as rows; nothing for any other value."""
    if isinstance(value, Mapping) and value and all(isinstance(item, Mapping | list) for item in value.values()):
        parts = [_rows([item] if isinstance(item, Mapping) else item, str(key)) for key, item in value.items()]
        return [row for part in parts for row in part] if all(parts) else []
    if isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        return [({"": name} if name else {}) | dict(item) for item in value]
    return []


def text(value: Any) -> str:
    """A value as people read it: nothing is a dash, and a float has four decimals, from 1,000 on only one."""
    if value is None or (isinstance(value, Mapping | list | tuple) and not value):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.{1 if abs(value) >= 1_000 else 4}f}".rstrip("0").rstrip(".")
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {text(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(text, value))
    return str(value)


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what a person can act on into one sentence on stderr and exit status 1; let bugs show their traceback."""
    try:
        yield
    except EXPECTED as error:
        fail(str(error))
    except ValidationError as error:
        fail("\n".join(fault for _, fault in faults(error)))
    except (InterruptedRun, LostProcessError) as error:
        fail(str(error), INTERRUPTED)
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        what, remedy = fault
        where = error.filename or "the root"
        fail(f"{what} at {where}: {remedy}, or give another --root, then run the same command again to resume.")
    except KeyboardInterrupt:
        fail("Stopped by Ctrl-C: run the same command again to resume.", 130)


def fail(message: str, status: int = 1) -> NoReturn:
    print(f"fabrating: {visible(message)}", file=sys.stderr)
    raise SystemExit(status)
