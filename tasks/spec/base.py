"""What all parameters have in common: immutable, unknown fields refused, and an identity."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

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


def how(default: Any, **field: Any) -> Any:
    """A field that says how an artifact is made, not what it is: no part of its identity."""
    return Field(default, json_schema_extra={"identity": False}, **field)


def if_set(default: Any, **field: Any) -> Any:
    """A field that is part of the identity only when it is set: what was made before the field existed keeps its name."""
    return Field(default, json_schema_extra={"identity": "if set"}, **field)


class Spec(BaseModel):
    """Base of all parameters: immutable, unknown fields refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

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
