"""Expressions over the columns of a pool: what `arm.score` and `arm.where` are written in. Parsing alone; nothing is run.

    (factual_accuracy_average + 2 * engagement) / 3
    3 < factual_accuracy_average <= 5 and source in ("web", "books") and not startswith(dump, "CC-MAIN-2013")
    `quality score` is not None

The syntax is Python's, read by `ast.parse` (a parser; nothing is compiled or evaluated) and cut down to numbers, texts, columns,
`+ - * / **`, comparisons, `in`, `is None`, `and`, `or`, `not` and FUNCTIONS. A column is written as it is called, dots included; a
name that is no identifier (blanks, hyphens, a keyword) goes in backticks.

`tasks.corpus.pool.evaluate` computes them.
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Literal

from tasks.errors import InputError

Kind = Literal["number", "text", "condition"]
LONGEST = 2_000
"""Characters of an expression: nesting stays far from the interpreter's limits."""
OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)
ORDERINGS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
FUNCTIONS: Mapping[str, tuple[tuple[Kind, ...], Kind]] = {
    "abs": (("number",), "number"),
    "sqrt": (("number",), "number"),
    "log": (("number",), "number"),
    "exp": (("number",), "number"),
    "min": (("number", "number"), "number"),
    "max": (("number", "number"), "number"),
    "startswith": (("text", "text"), "condition"),
    "contains": (("text", "text"), "condition"),
}
"""{name: (kinds of the arguments, kind of the result)}. The second argument of a function of texts is a constant."""
PIECE = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`([^`]+)`""")


@dataclass(frozen=True)
class Expression:
    """A parsed expression. `names`: the column of each node that is one, by the node's place."""

    text: str
    body: ast.expr
    names: Mapping[int, str]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it reads, sorted."""
        return tuple(sorted(set(self.names.values())))

    def column(self, node: ast.expr) -> str | None:
        """The column that a node stands for; None if it is something else."""
        return self.names.get(node.col_offset) if isinstance(node, ast.Name | ast.Attribute) else None

    def wrong(self, node: ast.expr, reason: str) -> InputError:
        """The error that a part of the expression is wrong, with its place."""
        return _wrong(self.text, node.col_offset, reason)

    def kind(self, kinds: Mapping[str, Kind]) -> Kind:
        """Number, text or condition, where columns are of these `kinds`. Raises InputError naming the place of what does not fit."""
        return self._kind(self.body, kinds)

    def _kind(self, node: ast.expr, kinds: Mapping[str, Kind]) -> Kind:
        if (column := self.column(node)) is not None:
            return kinds[column]
        if isinstance(node, ast.Constant):
            return "text" if isinstance(node.value, str) else "number"
        if isinstance(node, ast.BoolOp):
            return self._all(node.values, "condition", kinds)
        if isinstance(node, ast.UnaryOp):
            wanted: Kind = "condition" if isinstance(node.op, ast.Not) else "number"
            return self._all([node.operand], wanted, kinds)
        if isinstance(node, ast.BinOp):
            return self._all([node.left, node.right], "number", kinds)
        if isinstance(node, ast.Call):
            wanted_kinds, result = FUNCTIONS[called(node)]
            for argument, each in zip(node.args, wanted_kinds, strict=True):
                self._all([argument], each, kinds)
            return result
        for left, operator, right in compared(node):
            first = self._kind(left, kinds)
            if isinstance(operator, ast.Is | ast.IsNot):
                continue
            others = list(right.elts) if isinstance(right, ast.Tuple | ast.List) else [right]
            if first == "condition" or (first == "text" and isinstance(operator, ORDERINGS)):
                raise self.wrong(left, f"a {first} cannot be compared like this")
            self._all(others, first, kinds)
        return "condition"

    def _all(self, nodes: Sequence[ast.expr], wanted: Kind, kinds: Mapping[str, Kind]) -> Kind:
        for node in nodes:
            if (found := self._kind(node, kinds)) != wanted:
                raise self.wrong(node, f"a {wanted} is needed here, this is a {found}")
        return wanted


@lru_cache(maxsize=64)
def parse(text: str) -> Expression:
    """Read an expression. Raises InputError naming the place of what cannot be read."""
    if not text.strip() or len(text) > LONGEST:
        raise InputError(f"An expression of {len(text):,} characters cannot be read: write 1 to {LONGEST:,}.")
    quoted = {len(text[: found.start()].encode()): found[1] for found in PIECE.finditer(text) if found[1]}
    # Placeholders are as long as what they stand for, so places stay true.
    plain = PIECE.sub(lambda found: "_" * len(found[0].encode()) if found[1] else found[0], text)
    plain = re.sub(r"\s", " ", plain)
    try:
        body = ast.parse(plain.rstrip() if not plain.startswith(" ") else f"({plain[1:]})", mode="eval").body
    except SyntaxError as error:
        place = len(plain[: error.offset - 1].encode()) if error.offset else len(plain.encode())
        reason = "write == to compare" if plain[(error.offset or 0) - 1 :][:1] == "=" else error.msg.split(". ")[0]
        raise _wrong(text, place, reason) from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise _wrong(text, 0, str(error) or "it is nested too deeply") from None
    names: dict[int, str] = {}
    expression = Expression(text, body, names)
    _read(expression, body, quoted, names)
    return expression


def called(node: ast.Call) -> str:
    """The name of the function."""
    assert isinstance(node.func, ast.Name)
    return node.func.id


def compared(node: ast.expr) -> Iterator[tuple[ast.expr, ast.cmpop, ast.expr]]:
    """The pairs of a comparison, which may be chained: `1 < a <= 3`."""
    assert isinstance(node, ast.Compare)
    yield from zip([node.left, *node.comparators[:-1]], node.ops, node.comparators, strict=True)


def require_columns(what: str, wanted: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raises InputError if a `wanted` column is none of the `known` ones, naming those nearest. `what` asks for it, `where` has none."""
    for column in wanted:
        if column not in known:
            near = get_close_matches(column, known, 3, 0.5) or sorted(known)[:20]
            raise InputError(f"{what} asks for the column {column!r}, but {where} has none: take {_either(near)}.")


def _either(names: Sequence[str]) -> str:
    return " or ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "one that is there"


def _read(whole: Expression, node: ast.expr, quoted: Mapping[int, str], names: dict[int, str]) -> None:
    """Refuse what is no part of the language, and note what is a column."""
    parts: Sequence[ast.expr] = ()
    if isinstance(node, ast.Name) and node.col_offset in quoted:
        names[node.col_offset] = quoted[node.col_offset]
    elif isinstance(node, ast.Name | ast.Attribute):
        if node.col_offset in quoted:
            raise whole.wrong(node, "put the whole name in backticks")
        names[node.col_offset] = _dotted(whole, node)
    elif isinstance(node, ast.Constant):
        if isinstance(node.value, bool) or not isinstance(node.value, int | float | str):
            raise whole.wrong(node, f"{node.value!r} is neither a number nor a text")
        if not isinstance(node.value, str) and not abs(node.value) < 1e300:
            raise whole.wrong(node, "the number is too large")
    elif isinstance(node, ast.BoolOp):
        parts = node.values
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub | ast.UAdd):
        parts = [node.operand]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, OPERATORS):
        parts = [node.left, node.right]
    elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitAnd | ast.BitOr):
        raise whole.wrong(node, "write `and` and `or`, not & and |")
    elif isinstance(node, ast.Call):
        parts = _arguments(whole, node)
    elif isinstance(node, ast.Compare):
        parts = [node.left, *_right_sides(whole, node)]
    else:
        raise whole.wrong(node, "this is no part of the language")
    for part in parts:
        _read(whole, part, quoted, names)


def _arguments(whole: Expression, node: ast.Call) -> list[ast.expr]:
    if not isinstance(node.func, ast.Name) or node.func.id not in FUNCTIONS:
        raise whole.wrong(node, f"there is no such function, but {', '.join(FUNCTIONS)}")
    kinds, _ = FUNCTIONS[node.func.id]
    if len(node.args) != len(kinds) or node.keywords or any(isinstance(each, ast.Starred) for each in node.args):
        raise whole.wrong(node, f"{node.func.id} takes {len(kinds)} argument{'s' * (len(kinds) > 1)}")
    if kinds[0] == "text" and not isinstance(node.args[1], ast.Constant):
        raise whole.wrong(node.args[1], "a text in quotes is needed here")
    return node.args


def _right_sides(whole: Expression, node: ast.Compare) -> Iterator[ast.expr]:
    for _, operator, right in compared(node):
        if isinstance(operator, ast.Is | ast.IsNot):
            if not (isinstance(right, ast.Constant) and right.value is None):
                raise whole.wrong(right, "only None may follow `is`")
        elif isinstance(operator, ast.In | ast.NotIn):
            if not isinstance(right, ast.Tuple | ast.List) or not all(isinstance(e, ast.Constant) for e in right.elts):
                raise whole.wrong(right, 'constants in parentheses are needed here, such as ("a", "b")')
            yield from right.elts
        else:
            yield right


def _dotted(whole: Expression, node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(whole, node.value)}.{node.attr}"
    if not isinstance(node, ast.Name):
        raise whole.wrong(node, "put the name of a column in backticks")
    return node.id


def _wrong(text: str, offset: int, reason: str) -> InputError:
    """`offset`: in bytes of UTF-8, as nodes have it."""
    line, place = re.sub(r"\s", " ", text), len(text.encode()[:offset].decode(errors="ignore"))
    return InputError(f"At character {place + 1}: {reason}.\n    {line}\n    {' ' * place}^")
