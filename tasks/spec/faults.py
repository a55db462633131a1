"""What is wrong with parameters, a sentence a fault: the field, its value, what it should be, and the nearest name of an unknown one."""

from collections.abc import Iterator, Mapping, Sequence
from inspect import isclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from tasks.errors import InputError
from tasks.spec.base import Spec, no_field

Place = tuple[int | str, ...]
"""Where a value stands: ("arms", 0, "share")."""


def faults(error: ValidationError, given: Any = None, form: type[BaseModel] | None = None) -> list[tuple[Place, str]]:
    """What is wrong, in words, with its place in `given`. `form`: what was asked for, if not the parameters that the error names.

    Where one of several types would do, what each of them wants is one fault.
    """
    form = form or next((each for each in _all(Spec) if each.__name__ == error.title), None)
    found: dict[Place, list[Any]] = {}
    for problem in error.errors():
        found.setdefault(_place(problem["loc"], given), []).append(problem)
    return [(place, _sentence(dotted(place), place, problems, form)) for place, problems in found.items()]


def _place(location: Place, given: Any) -> Place:
    """pydantic's location without the names of types, which stand in it where one of several would do."""
    if given is None:
        return tuple(part for part in location if "[" not in str(part))
    place: list[int | str] = []
    for at, part in enumerate(location):
        try:
            given = given[part]
        except (LookupError, TypeError):
            if at < len(location) - 1 or not isinstance(given, Mapping) or "[" in str(part):
                continue  # the last one of a mapping is a field that is missing
        place.append(part)
    return tuple(place)


def _sentence(name: str, place: Place, problems: Sequence[Mapping[str, Any]], form: type[BaseModel] | None) -> str:
    problem = problems[0]
    if not place:  # of the parameters as a whole, which would only hide the message
        return f"{problem['msg'].removeprefix('Value error, ')}."
    if problem["type"] == "extra_forbidden" and form is not None:
        return f"{name} cannot be used: {no_field(str(place[-1]), model_at(form, place[:-1]))}."
    if problem["type"] == "missing":
        return f"{name} is missing: give it."
    if isinstance(
        problem.get("ctx", {}).get("error"), InputError
    ):  # it shows what it may: the value can hold a signature
        return f"{name}: {problem['msg'].removeprefix('Value error, ')}"
    messages = [_message(each) for each in problems]
    wanted = ", or ".join(dict.fromkeys(message[:1].lower() + message[1:] for message in messages))
    value = "" if isinstance(problem["input"], Mapping | list) else f" = {problem['input']!r}"
    return f"{name}{value} cannot be used: {wanted}{'' if wanted.endswith('?') else '.'}"


def _message(problem: Mapping[str, Any]) -> str:
    """pydantic's words, but for a list's length, of which it says what happens inside."""
    counted = {"too_short": ("at least", "min_length"), "too_long": ("at most", "max_length")}.get(problem["type"])
    if counted is None:
        return str(problem["msg"]).removeprefix("Value error, ")
    (bound, name), ctx = counted, problem["ctx"]
    given = ctx["actual_length"]  # None: more, which were not counted
    return f"give {bound} {ctx[name]:,}, not {'more' if given is None else given}"


def _all(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield from (each, *_all(each))


def dotted(place: Place) -> str:
    """A place as people write it: arms.0.share."""
    return ".".join(map(str, place))


def model_at(form: type[BaseModel], place: Sequence[int | str]) -> type[BaseModel]:
    """The model of the value at a place, or that of the innermost one around it."""
    for part in place:
        field = form.model_fields.get(str(part))
        form = (model_in(field.annotation) if field else None) or form
    return form


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The first model in a type such as `list[Arm]` or `StoppingRule | None`."""
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := model_in(part))), None)
