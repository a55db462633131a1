"""The part of the `fabrating` command that keeps account of what lies under a root: runs, ls, rm."""

import sys
from enum import StrEnum
from typing import Annotated

import typer

from infra.cli import terminal
from infra.cli.options import JsonOption, RootOption, explained, reading
from tasks.errors import DamagedError, InputError
from tasks.records.layout import KINDS, RUNS
from tasks.store.root import DEFAULT_ROOT, Root

Kind = StrEnum("Kind", {kind: kind for kind in KINDS})  # type: ignore[misc]


def runs(
    wide: Annotated[
        bool, typer.Option("--wide", help="All columns: host, attempts, loss, CORE, hours, W&B ...")
    ] = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """List the runs of the ledger, active ones first, then the newest: arm, seed, step, bits per byte, speed, cost, state."""
    from tasks.records.ledger import entries
    from tasks.reports.ledger import core_scores, narrow, table
    from tasks.reports.live import SCORING, left

    store = reading(root)
    unreadable: list[DamagedError] = []
    found = sorted(entries(store, unreadable), key=lambda entry: not entry.active)
    if as_json or wide:
        rows = table(found, core_scores(store, found))
        terminal.show_rows(rows, as_json)
    elif found:
        terminal.show_rows(narrow(found), False)
        for entry in found:
            if remaining := left(entry):
                is_at = "is being scored" if remaining == SCORING else f"has {remaining} left"
                terminal.say(f"{entry.run} {is_at}.", terminal.err)
    for error in unreadable:
        terminal.say(f"Not listed: {error}", terminal.err)
    if not as_json:
        _say_where(store, RUNS if not found and not unreadable else None)


def ls(
    kind: Annotated[Kind, typer.Argument(help="pools, arms, runs, verdicts or ladders.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """List the pools, arms, runs, verdicts or ladders under the root by their whole names, newest first."""
    from tasks.records.inventory import listed

    store = reading(root)
    rows = listed(store, kind.value)
    if as_json:
        terminal.show_rows(rows, True)
        return
    says = [(row[next(iter(row))], row.pop("says")) for row in rows if "says" in row]
    if rows:
        terminal.show_rows(rows, False)
    for name, sentences in says:
        terminal.say(f"\n{name}: {'. '.join(sentences)}.")
    _say_where(store, kind.value if not rows else None)


def rm(
    name: Annotated[
        str, typer.Argument(help="A pool, an arm, a run, a verdict or a ladder: its name, or a part that no other has.")
    ],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Remove a pool, an arm, a run, a verdict or a ladder for good, here and in a remote root. What was made from it stays, and is named."""
    from tasks.records.inventory import dependents, find, remove

    store = reading(root)
    thing = find(store, name)
    left = dependents(store, thing)
    if not yes:
        terminal.say(
            f"{store.url}/{thing.folder} would be removed, in all {_size(store, thing.folder)} here.", terminal.err
        )
        if left:
            terminal.say(
                f"Made from it, these stay, but nothing can be added to them: {', '.join(each.folder for each in left)}.",
                terminal.err,
            )
        if not sys.stdin.isatty():
            raise InputError(f"Nobody can be asked whether to remove the {thing.what}: add --yes.")
        typer.confirm("Remove it for good?", abort=True, err=True)
    remove(store, thing)
    terminal.show({"removed": thing.folder} | ({"stays": [each.folder for each in left]} if left else {}), as_json)


COMMANDS = (runs, ls, rm)


def _say_where(root: Root, nothing: str | None) -> None:
    """Which root this was, and why that one. `nothing`: the kind of which there is none."""
    where = explained(root.url)
    terminal.say(f"There are no {nothing} under {where}." if nothing else f"Root: {where}.", terminal.err)


def _size(root: Root, folder: str) -> str:
    from tasks.reports.artifacts import byte_size

    return byte_size(sum(path.stat().st_size for path in root.path(folder).rglob("*") if path.is_file()))
