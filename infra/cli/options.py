"""Options that several commands share, and what `--set` makes of its pairs."""

import json
import os
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, get_type_hints

import typer
from typer.core import TyperCommand

from infra.cli import terminal
from infra.local import stack
from tasks.errors import InputError
from tasks.spec import Pool, Spec, kind_of, no_field
from tasks.spec.base import whole_number
from tasks.spec.pool import SOURCE_VARIABLE
from tasks.store.root import DEFAULT_ROOT, Root, root_if_made, root_url


def root_of(given: str) -> str:
    """The root that a command is given, or that of the stack."""
    return stack.default_root()[0] if given == DEFAULT_ROOT else given


def reading(url: str) -> Root:
    """The root of a command that looks up what is there. Raises InputError when there is no such root."""
    return Root(url, make=False)


def reading_if_made(url: str) -> Root | None:
    """The same for a command that can do without: None for the default root as long as it has not been made."""
    return root_if_made(url, root_of(DEFAULT_ROOT))


def explained(url: str) -> str:
    """A root's URL, and where it comes from."""
    default, why = stack.default_root()
    return f"{url} ({why if root_url(default) == url else 'given with --root'})"


RootOption = Annotated[
    str,
    typer.Option(
        callback=root_of,
        help="Where artifacts lie: a folder, file:///folder, az://container/prefix, s3:// or gs://. Default: the stack's, wherever you stand.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any other parameter; may be repeated.")
]


def tokens(given: str | int) -> int:
    """A number of tokens as people write it: 2B, 1.5M, 2e9."""
    try:
        return int(whole_number(given))
    except ValueError:
        terminal.fail(f"{given!r} is no number of tokens: write 2000000000, 2e9 or 2B.")


WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Cores to use. Default: FABRATING_WORKERS, else all that this process may use."),
]


class Command(TyperCommand):
    """A command that takes an option with one value once: of two, the last would win unseen."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        valued = {flag: each for each in self.params if not getattr(each, "is_flag", True) for flag in each.opts}
        given: dict[str | None, str] = {}
        words = iter(args)
        for word in words:
            flag, equals, value = word.partition("=")
            if word == "--" or (option := valued.get(flag)) is None:
                continue
            value = value if equals else next(words, "")
            if not option.multiple and given.setdefault(option.name, value) != value:
                raise InputError(f"{flag} is given twice, as {given[option.name]!r} and {value!r}: give it once.")
        return super().parse_args(ctx, args)


def wrong_option(name: str, command: Any, function: Callable[..., None]) -> str:
    """What to say of an option that a command, made of `function`, lacks: the nearest one, what it takes, and an example."""
    known = {flag: param for param in command.params for flag in param.opts if flag.startswith("--")}
    near = get_close_matches(name, known, 1, 0.5)
    if not near:
        return f"There is no option {name}: `fabrating {command.name} --help` lists those there are."
    param, taken = known[near[0]], get_type_hints(function).get(known[near[0]].name)
    if param.is_flag:
        return f"There is no option {name}: {near[0]} is one, without a value."
    such = f", such as {near[0]} {param.default}" if param.default not in (None, "") else ""
    return f"There is no option {name}: {near[0]} takes {kind_of(taken)}{such}."


def pool_of(source: str | None, fields: Mapping[str, Any]) -> Pool:
    """The pool with these fields, read from `source` unless they name several. Raises InputError when neither is given, nor FABRATING_SOURCE."""
    if source is None and "sources" not in fields and not os.environ.get(SOURCE_VARIABLE):
        raise InputError("No raw data is named: give its URL or folder, or several with --set sources=...")
    return Pool(**fields) if source is None else Pool(**{"source": source, **fields})


def read_json(given: str) -> Any:
    """A value of the command line that is JSON. Raises JSONDecodeError where it is none, InputError for a name with two values."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for name, value in pairs:
            if named.setdefault(name, value) != value:
                raise InputError(f"{name} is given twice, as {named[name]!r} and {value!r}: give it once.")
        return named

    return json.loads(given, object_pairs_hook=once)


def parse(settings: list[str] | None, options: Collection[str], *models: type[Spec]) -> dict[str, Any]:
    """{field: value} of FIELD=VALUE pairs; a value is JSON where it can be.

    Raises InputError for a pair without an equals sign, for a field that is one of the command's own `options`, for one that
    none of the `models` has, and for one that has two values.
    """
    parsed: dict[str, Any] = {}
    for setting in settings or ():
        field, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} has no value: write --set {setting}=VALUE.")
        if field in options:
            raise InputError(f"--set {setting} sets what has an option of its own: see {field!r} in --help.")
        if not any(field in model.model_fields for model in models):
            raise InputError(f"--set {setting} cannot be used: {no_field(field, *models)}.")
        try:
            read = read_json(value)
        except json.JSONDecodeError:
            read = value
        if parsed.setdefault(field, read) != read:
            raise InputError(f"--set {field} is given twice, as {parsed[field]!r} and {read!r}: give it once.")
    return parsed
