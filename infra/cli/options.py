"""Options that several commands share, and what `--set` makes of its pairs."""

import json
from collections.abc import Collection
from typing import Annotated, Any

import typer

from tasks.errors import InputError

RootOption = Annotated[
    str, typer.Option(help="Where artifacts lie: a folder, file:///folder or az://container/prefix.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any other parameter; may be repeated.")
]


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
