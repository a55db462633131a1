"""What all parameters have in common: immutable, unknown fields refused, and an identity."""

import json
from collections.abc import Mapping
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticUndefined, to_jsonable_python

from tasks.store.urls import SIGNATURE, require_unsigned

Url = Annotated[
    str, AfterValidator(require_unsigned), Field(min_length=1, json_schema_extra={"pattern": f"^(?!.*{SIGNATURE})"})
]
"""A URL or a path. One with a signature is refused by the server's schema, before it is stored, and here."""

Fields = Annotated[
    dict[str, Any],
    Field(json_schema_extra={"additionalProperties": {"not": {"type": "string", "pattern": SIGNATURE}}}),
]
"""Fields of a model by name, in a form that asks for little; none with a signature."""

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9_-]{0,40}$")]
"""A readable part of an artifact's name: lower case, digits, - and _."""


def _part(value: Any) -> Any:
    if isinstance(value, int | float) and 1 < value <= 100:
        raise ValueError(f"it is a part of 1, did you mean {round(value / 100, 9):g}?")
    return value


Share = Annotated[float, BeforeValidator(_part)]
"""A part of something, above 0 and at most 1. What looks like percent is asked back."""
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


def how(default: Any, **field: Any) -> Any:
    """A field that says how an artifact is made, not what it is: no part of its identity."""
    return Field(default, json_schema_extra={"identity": False}, **field)


def if_set(default: Any, **field: Any) -> Any:
    """A field that is part of the identity only when it is set: what was made before the field existed keeps its name."""
    return Field(default, json_schema_extra={"identity": "if set"}, **field)


class Spec(BaseModel):
    """Base of all parameters: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        for name in given if isinstance(given, Mapping) else ():
            if name not in cls.model_fields:
                raise ValueError(no_field(name, cls))
        return given

    def identity(self) -> dict[str, Any]:
        """The fields that determine content, as JSON-ready values, in declaration order."""
        identity = {}
        for name, field in type(self).model_fields.items():
            extra = field.json_schema_extra
            counts = extra.get("identity", True) if isinstance(extra, dict) else True
            value = getattr(self, name)
            if counts is False or (counts == "if set" and value == field.default):
                continue
            identity[name] = _identity(value)
        return identity


def _identity(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_identity(each) for each in value]
    return value.identity() if isinstance(value, Spec) else value


def no_field(name: str, *models: type[Spec]) -> str:
    """What to say of a field that none of the models has: the nearest one, what it takes, and an example."""
    fields = {known: field for model in models for known, field in model.model_fields.items()}
    near = get_close_matches(name, fields, 1, 0.5)
    if not near:
        return f"there is no field {name!r}: take one of {', '.join(fields)}"
    field, said = fields[near[0]], f"there is no field {name!r}: {near[0]} is {kind_of(fields[near[0]].annotation)}"
    example = None if field.default is PydanticUndefined else to_jsonable_python(field.default)
    if example in (None, "", [], {}):
        return said
    return f"{said}, such as {example if isinstance(example, str) else json.dumps(example)}"


def kind_of(annotation: Any) -> str:
    """What a field takes, in words."""
    origin, parts = get_origin(annotation), [part for part in get_args(annotation) if part is not NoneType]
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is Annotated:
        return kind_of(parts[0])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(kind_of, parts)))
    if origin is tuple or origin is list:
        return "a list"
    return KINDS.get(annotation, "a mapping")
