"""What all parameters have in common: immutable, unknown fields refused, an identity, and the kinds of values that fields take.

Every number has both bounds and every string a shape, the same in a form's schema, by which the server refuses a value before it
stores it, as in the model: a number beyond 64 bits, once stored, is one that the server cannot give out again.
"""

import json
import re
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    create_model,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticUndefined, core_schema, to_jsonable_python

from tasks.store.urls import SIGNATURE, require_unsigned


@dataclass(frozen=True)
class Shape:
    """The regular expression that a string matches as a whole. `what`: the same in words that follow "is not"."""

    pattern: str
    what: str

    def check(self, value: str) -> str:
        """The value itself. Raises ValueError, which does not repeat it."""
        if not re.fullmatch(self.pattern, value):
            raise ValueError(f"is not {self.what}")
        return value

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # the server's `$` also matches before a line feed at the end
        return handler(core) | {"pattern": rf"^(?:{self.pattern})$(?!\n)"}


@dataclass(frozen=True)
class FieldsOf:
    """Of a dictionary: it holds fields of `model`, whichever. The form shows one box for it, not one a field."""

    model: type[BaseModel]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        fields = _by_field(self.model).model_json_schema()["properties"]
        for field in fields.values():
            del field["default"]
        return {"type": "object", "patternProperties": {rf"^{name}$(?!\n)": fields[name] for name in fields}, **CLOSED}

    def _check(self, given: dict[str, Any]) -> dict[str, Any]:
        _by_field(self.model).model_validate(given)
        return given


@cache
def _by_field(model: type[BaseModel]) -> type[BaseModel]:
    """The model without its rules for several fields together, which others that are not given here may meet."""
    fields: Any = {name: (field.annotation, field) for name, field in model.model_fields.items()}
    return create_model(model.__name__, __config__=model.model_config, **fields)


CLOSED: dict[str, Any] = {"additionalProperties": False}
"""In the schema of a dictionary whose keys have a shape: it has no others."""


ANY = r"[^\x00-\x1f\x7f\ud800-\udfff]"
"""A character, but for those that move a terminal's cursor or that a database does not store."""

Url = Annotated[
    str,
    AfterValidator(require_unsigned),  # first: what it says does not repeat the value
    Shape(rf"(?!\s)(?!.*{SIGNATURE}){ANY}{{1,2000}}", "a URL or path: one line of at most 2,000 characters, not blank"),
]
"""A URL or a path. One with a signature is refused by the server's schema, before it is stored, and here."""

Name = Annotated[
    str,
    Shape(
        r"[a-z0-9][a-z0-9_-]{0,40}",
        "a name: at most 41 lower-case letters, digits, - and _, beginning with a letter or digit",
    ),
]
"""A readable part of an artifact's name."""

Id = Annotated[
    str, Shape(r"[a-z0-9][a-z0-9_-]{0,99}", "the name of an artifact: at most 100 lower-case letters, digits, - and _")
]
"""The whole name of a pool, an arm or a run, with its fingerprint."""

Label = Annotated[str, Shape(rf"(?!\s){ANY}{{1,60}}", "a name: one line of at most 60 characters, not blank")]
"""What a person calls a run, to find it again: no part of its identity."""

Line = Annotated[str, Shape(rf"{ANY}{{1,2000}}", "a line of 1 to 2,000 characters")]
Column = Annotated[str, Shape(rf"{ANY}{{1,255}}", "the name of a column: a line of 1 to 255 characters")]

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""What draws are a hash of."""

UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12}
SMALL = ("[1-9][0-9]{0,2}", r"0\.(?=[0-9]*[1-9])[0-9]{1,3} ?[kK]")
LARGE = (
    "[1-9][0-9]{3,14}",
    "[1-9][0-9]{0,2}(?:[,_][0-9]{3}){1,4}",
    r"[1-9][0-9]{0,2}(?:\.[0-9]{1,3})?[eE]\+?(?:0?[3-9]|1[0-2])",
    r"[1-9][0-9]{0,2}\.[0-9]{4,6}[eE]\+?(?:0?[6-9]|1[0-2])",
    r"[1-9][0-9]{0,2}\.[0-9]{7,9}[eE]\+?(?:0?9|1[0-2])",
    r"[1-9][0-9]{0,11}(?:\.[0-9]{1,3})? ?[kK]",
    r"[1-9][0-9]{0,8}(?:\.[0-9]{1,6})? ?[mM]",
    r"[1-9][0-9]{0,5}(?:\.[0-9]{1,9})? ?[bBgG]",
    r"[1-9][0-9]{0,2}(?:\.[0-9]{1,12})? ?[tT]",
    r"0\.(?=0{0,2}[1-9])[0-9]{1,6} ?[mMbBgGtT]",
)
"""Whole numbers as people write them, those below 1,000 and those from there to 10^15: so many decimals that the number is whole."""


@dataclass(frozen=True)
class Written:
    """Of a whole number up to 10^15: it may be written as one of these patterns, such as 2B, 1.5M, 2e9 or 2_000_000, in a form too."""

    patterns: tuple[str, ...]

    def number(self, given: Any) -> Any:
        """The integer that a text means; what is no text as it is. Raises ValueError for a text without one of these patterns."""
        if not isinstance(given, str):
            return given
        if not re.fullmatch("|".join(self.patterns), given):
            raise ValueError("is not a whole number, such as 2000000000, 2e9 or 2B")
        digits = re.sub("[,_ ]", "", given.lower())
        unit = digits[-1] if digits[-1] in UNITS else ""
        return int(Decimal(digits.removesuffix(unit)) * UNITS[unit])

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.number, handler(source))

    def __get_pydantic_json_schema__(self, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        pattern = f"^(?:{'|'.join(self.patterns)})$(?!\\n)"
        return {"anyOf": [handler(core), {"type": "string", "pattern": pattern}]}


whole_number = Written(SMALL + LARGE).number
Count = Annotated[int, Field(ge=1, le=10**15), Written(SMALL + LARGE)]
"""Documents, tokens, characters: more than there are."""

Steps = Annotated[int, Field(ge=1, le=10**9)]

Cores = Annotated[int, Field(ge=1, le=10_000)]
"""Of one machine."""

Dollars = Annotated[float, Field(ge=0, le=1e9)]


def _part_up_to(most: float) -> BeforeValidator:
    def part(value: Any) -> Any:
        if isinstance(value, int | float) and 1 < value <= 100 * most:
            raise ValueError(f"it is a part of 1, did you mean {round(value / 100, 9):g}?")
        return value

    return BeforeValidator(part)


Share = Annotated[float, Field(gt=0, le=1), _part_up_to(1)]
"""A part of something, above 0 and at most 1. What looks like percent is asked back."""

Half = Annotated[float, Field(gt=0, le=0.5), _part_up_to(0.5)]
"""The same, at most a half."""

KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
EXAMPLES = {"a whole number": "1", "a number": "0.5", "true or false": "true"}


def how(default: Any, **field: Any) -> Any:
    """A field that says how an artifact is made, not what it is: no part of its identity."""
    return Field(default, json_schema_extra={"identity": False}, **field)


def if_set(default: Any, **field: Any) -> Any:
    """A field that is part of the identity only when it is set: what was made before the field existed keeps its name."""
    return Field(default, json_schema_extra={"identity": "if set"}, **field)


def _in_order(schema: dict[str, Any]) -> None:
    """Number the fields in a schema: by that Prefect's form sorts them, and PostgreSQL keeps no other order."""
    for position, field in enumerate(schema.get("properties", {}).values()):
        field["position"] = position


class Spec(BaseModel):
    """Base of all parameters: immutable, unknown fields refused. A form shows the fields in their order: first what people set most."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, json_schema_extra=_in_order)

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


def no_field(name: str, *models: type[BaseModel]) -> str:
    """What to say of a field that none of the models has: the nearest one, what it takes, and an example."""
    fields = {known: field for model in models for known, field in model.model_fields.items()}
    near = get_close_matches(name, fields, 1, 0.5)
    if not near:
        return f"there is no field {name!r}: take one of {', '.join(fields)}"
    field, said = fields[near[0]], f"there is no field {name!r}: {near[0]} is {kind_of(fields[near[0]].annotation)}"
    example = None if field.default is PydanticUndefined else to_jsonable_python(field.default)
    if example in (None, "", [], {}):
        usual = EXAMPLES.get(kind_of(field.annotation))
        return f"{said}, such as {usual}" if usual else said
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
