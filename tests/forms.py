"""The forms of all deployments, and values that try their bounds: at them, below, beyond, and what no database stores."""

import importlib
import math
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import yaml
from hypothesis import strategies as st
from prefect.utilities.callables import parameter_schema

from infra.local import deploy

Path = tuple[str | int, ...]
INTEGERS = [-1, 0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63) - 1, 10**40]
NUMBERS = [*INTEGERS, 0.5, -0.5, 1e-300, 1e308, -1e308]
TEXTS = [*("", " ", "a", "../x", "x\n", "\n", "a\x00b", "\x1b[2J", "é", "漢字", "\ud800", "a" * 300, "a" * 20_000)]
COUNTS = [
    *("2B", "2e9", "0.5 b", "1.5M", "1_000", "1,000,000", "999", "1000", "0.001k", "999999.999999999g", "999.999e12")
]
COUNTS += ["0", "0.0k", "1.0005k", "9e99T", "1e15", "2X", "1000000000000000", "1_00", "2B\n", "+5", "5.0", "\u0663"]
OTHERS = [None, True, [], {}, "1", 1, {"x": 2**64}, [2**64], {"\x00": 1}]
WHOLE = {"gpu_host": {"host": {"address": "h"}}, "remove_host": {"host": {"address": "h"}}}
WHOLE |= {"train": {"arm": "top16-0a1b2c3d4e"}, "score": {"run": "top16-d20-s1-0a1b2c3d4e"}, "shards": {"names": ["x"]}}
"""What the forms must be given."""
FILLED = {"sources": {"a": "az://raw/a", "b": "az://raw/b"}, "score": {"a": 1.0}, "strata_by": {"a": 1.0}}
FILLED |= {
    "texts": [{"url": "az://raw/web"}],
    "parts": [{}],
    "seeds": [1, 2],
    "depths": [4, 6, 8],
    "strata": ["dump"],
    "stop": {},
    "random_share": {"top16": 0.5},
}
FILLED |= {"source": {"address": "h"}, "target": {"address": "h"}, "names": ["x"], "allow": ["arm.order"]}
"""Something to change inside of fields that are empty as the form has them."""


@dataclass
class Form:
    """The form of a flow: its schema, and where it has a value, with the schema of that."""

    flow: Any
    deployment: str

    @cached_property
    def schema(self) -> dict[str, Any]:
        return parameter_schema(self.flow).model_dump_for_openapi() | {"additionalProperties": False}

    @property
    def base(self) -> dict[str, Any]:
        """Parameters that are valid."""
        return deepcopy(WHOLE.get(self.flow.fn.__name__, {}))

    def places(self) -> list[tuple[Path, dict[str, Any]]]:
        """Every field of the form, however deep, and a few beside them."""
        schema = self.schema
        found = [place for name, one in schema["properties"].items() for place in self._below((name,), one)]
        return [*found, (("no_such_field",), {})]

    def _below(self, path: Path, schema: dict[str, Any]) -> Iterator[tuple[Path, dict[str, Any]]]:
        if "$ref" in schema:
            schema = self.schema["definitions"][schema["$ref"].rsplit("/", 1)[1]]
        yield path, schema
        for each in schema.get("anyOf", []):
            yield from self._below(path, each)
        for name, each in schema.get("properties", {}).items():
            yield from self._below((*path, name), each)
        if schema.get("properties"):
            yield (*path, "no_such_field"), {}
        for pattern, each in schema.get("patternProperties", {}).items():
            name = pattern[1:].partition("$")[0] if pattern[1:].partition("$")[0].isidentifier() else "a"
            yield from self._below((*path, name), each)
            yield (*path, "a\x00" if name == "a" else "no_such_field"), each
        if isinstance(each := schema.get("items"), dict):
            yield from self._below((*path, 0), each)

    def filled(self, path: Path, value: Any) -> dict[str, Any]:
        """The valid parameters with this value at a path."""
        whole = self.base
        inside: Any = whole
        for step, after in pairwise(path):
            if isinstance(step, int):
                inside = inside[step]
                continue
            if step not in inside:
                inside[step] = deepcopy(FILLED.get(step, [{}] if after == 0 else {}))
                if step == "arms":
                    inside[step] = [{"name": "a"}, {"name": "b"}]
                if isinstance(after, str) and isinstance(inside[step], str | list):
                    inside[step] = {}
            inside = inside[step]
        inside[path[-1]] = value
        return whole


def _forms() -> list[Form]:
    found = {}
    for one in yaml.safe_load((deploy.DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]:
        path, name = one["entrypoint"].split(":")
        flow = getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)
        found.setdefault(one["entrypoint"], Form(flow, f"{flow.name}/{one['name']}"))
    return list(found.values())


FORMS = _forms()


def values(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values for a field with this schema: at its bounds and around them, of its type and of others."""
    kind, near = schema.get("type"), []
    for key in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
        if (bound := schema.get(key)) is not None:
            near += [bound, bound - 1, bound + 1]
            near += [math.nextafter(bound, math.inf), math.nextafter(bound, -math.inf)] if kind == "number" else []
    if kind == "integer":
        return st.sampled_from([*near, *INTEGERS]) | st.integers()
    if kind == "number":
        return st.sampled_from([*near, *NUMBERS]) | st.floats(allow_nan=False)
    if kind == "string":
        return st.sampled_from([*TEXTS, *COUNTS, *schema.get("enum", [])]) | st.text(max_size=60)
    if kind == "array":
        return st.sampled_from([[], [None] * 20_000, *OTHERS])
    return st.sampled_from(OTHERS)
