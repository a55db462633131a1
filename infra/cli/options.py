"""Options that several commands share, and what `--set` makes of its pairs."""

import json
from collections.abc import Collection, Mapping
from typing import Annotated, Any

import typer

from tasks.errors import InputError
from tasks.spec import Pool

RootOption = Annotated[
    str, typer.Option(help="Where artifacts lie: a folder, file:///folder or az://container/prefix.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any other parameter; may be repeated.")
]


def pool_of(source: str | None, fields: Mapping[str, Any]) -> Pool:
    """The pool with these fields, read from `source` unless they name several. Raises InputError when neither is given."""
    if source is None and "sources" not in fields:
        raise InputError("No raw data is named: give its URL or folder, or several with --set sources=...")
    return Pool(**fields) if source is None else Pool(**{"source": source, **fields})


def parse(settings: list[str] | None, options: Collection[str]) -> dict[str, Any]:
    """{field: value} of FIELD=VALUE pairs; a value is JSON where it can be.

    Raises InputError for a pair without an equals sign, and for a field that is one of the command's own `options`.
    """
    parsed: dict[str, Any] = {}
    for setting in settings or ():
        field, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} has no value: write --set {setting}=VALUE.")
        if field in options:
            raise InputError(f"--set {setting} sets what has an option of its own: see {field!r} in --help.")
        try:
            parsed[field] = json.loads(value)
        except ValueError:
            parsed[field] = value
    return parsed
