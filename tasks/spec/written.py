"""Forms as YAML files: an example of one with every field and what it means, and the way back, with the line of each fault."""

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from tasks.errors import InputError
from tasks.spec.base import Spec
from tasks.spec.faults import Place, dotted, faults, model_in

WIDTH = 110
OTHER_BASE = {"tag:yaml.org,2002:int": re.compile(r"[-+]?0_*[0-9]|.*:"), "tag:yaml.org,2002:float": re.compile(".*:")}
"""How a number begins that YAML reads in base 8, or in base 60: 020000, 1:30 and 1:30.5, by its tag."""
Form = TypeVar("Form", bound=Spec)


def example(form: Spec, title: str) -> str:
    """A YAML file that reads as `form`. What was not given to it stands behind a `#` with its default, below what it means."""
    lines = [*_prose(title), ""]
    for name, field in type(form).model_fields.items():
        lines += [*_field(form, name, field), ""]
    return "\n".join(lines).rstrip() + "\n"


def read(path: Path, form: type[Form]) -> Form:
    """The form that a YAML file holds.

    Raises InputError, a sentence a fault with the file and the line, when there is no such file, when it is no YAML, when a field
    is unknown or given twice, and when a value cannot be used.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise InputError(
            f"{path} cannot be read ({reason}): give an experiment's file; `fabrating init` writes one."
        ) from error
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        lines = dict(_lines(node, path)) if node else {}
        given = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line} is no YAML: {problem or 'a character cannot stand there'}.") from error
    if not isinstance(given, dict):
        raise InputError(f"{path} holds no fields: write NAME: VALUE lines; `fabrating init` shows them all.")
    try:
        return form.model_validate(given)
    except ValidationError as error:
        found = [(_nearest(lines, place), fault) for place, fault in faults(error, given, form)]
        raise InputError("\n".join(f"{path}, line {line}: {fault}" for line, fault in sorted(found))) from error


def _lines(
    node: yaml.Node, path: Path, place: Place = (), around: tuple[yaml.Node, ...] = ()
) -> Iterator[tuple[Place, int]]:
    """The place and the line, from 1, of every value.

    Raises InputError for a field that is given twice or holds itself, and for 020000, which YAML reads as 8,192.
    """
    line = node.start_mark.line + 1
    if node in around:
        raise InputError(f"{path}, line {line}: {dotted(place)} holds itself: leave out the alias.")
    if (other := OTHER_BASE.get(node.tag)) and other.match(node.value):
        raise InputError(
            f"{path}, line {line}: {dotted(place)} = {node.value} is a number in base 8 or 60 in YAML: write it in base 10, or a text in quotes."
        )
    yield place, line
    if isinstance(node, yaml.SequenceNode):
        for at, each in enumerate(node.value):
            yield from _lines(each, path, (*place, at), (*around, node))
    elif isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in seen and name != "<<":
                twice = dotted((*place, name))
                raise InputError(f"{path}, line {line}: {twice} is given in line {seen[name]}, too: leave one out.")
            seen[name] = line
            yield from _lines(value, path, (*place, name), (*around, node))
            yield (*place, name), line


def _nearest(lines: dict[Place, int], place: Place) -> int:
    """The line of a place, or of what it would stand in."""
    while place not in lines and place:
        place = place[:-1]
    return lines.get(place, 1)


def _field(form: BaseModel, name: str, field: FieldInfo) -> Iterator[str]:
    """The lines of one field: what it means, and its value, behind a `#` if it was not given."""
    given, value = name in form.model_fields_set, getattr(form, name)
    yield from _prose(_meaning(field, value))
    model = model_in(field.annotation)
    if value is None and model and model_in(get_args(field.annotation)[0]):
        value, given = model(), False  # StoppingRule | None: what it would say
    if isinstance(value, BaseModel):
        below = [line for each, info in type(value).model_fields.items() for line in _field(value, each, info)]
        lines = [f"{name}:", *_indented(below)]
    elif isinstance(value, list | tuple) and value and isinstance(value[0], BaseModel):
        lines = [f"{name}:"]
        for at, item in enumerate(value):
            shown = [each for each in type(item).model_fields if at == 0 or each in item.model_fields_set]
            below = [
                line
                for each in shown
                for line in (_field(item, each, type(item).model_fields[each]) if at == 0 else [_line(item, each)])
            ]
            lines += ["  -", *_indented(below, 4)]
    else:
        lines = [_line(form, name)]
    yield from lines if given else (f"#{line}" for line in lines)


def _line(form: BaseModel, name: str) -> str:
    value = form.model_dump(mode="json", include={name})[name]
    shown = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=float("inf"))
    return f"{name}: {shown.removesuffix(chr(10)).removesuffix('...').strip()}"


def _meaning(field: FieldInfo, value: Any) -> str:
    """What a field's description says; choices that it leaves out are added, and what the items of an empty list have."""
    words = [field.description or ""]
    choices = _choices(field.annotation)
    if any(choice not in words[0] for choice in choices):
        words.append(f"One of {', '.join(choices)}.")
    model = model_in(field.annotation)
    if model and get_origin(field.annotation) in (list, tuple) and not value:
        words.append(f"Each has {', '.join(model.model_fields)}.")
    return " ".join(words)


def _choices(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(choice) for choice in get_args(annotation)]
    return [choice for part in get_args(annotation) for choice in _choices(part)]


def _prose(text: str) -> list[str]:
    return [f"# {line}".rstrip() for part in text.splitlines() for line in textwrap.wrap(part, WIDTH) or [""]]


def _indented(lines: list[str], by: int = 2) -> list[str]:
    return [" " * by + line for line in lines]
