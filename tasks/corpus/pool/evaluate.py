"""Expressions computed by pyarrow's kernels, a slice of documents at a time.

Why pyarrow.compute: it is here already, its comparisons have SQL's nulls (three-valued `and`, `or`, `not`), it works on
dictionary-encoded texts in slices of mapped columns, so that memory is that of a slice, and it has no language that could do
more than compute. numexpr evaluates Python and knows no nulls. Polars (200 MB) and DuckDB take SQL, in which NaN is larger than
every number and which can read files; neither says where a mistake is in terms of our columns.

A missing value is null, and so is a result that is not finite. A comparison with null is null, and a filter takes the documents
for which it is true.
"""

import ast
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tasks.expression import Expression, called, compared

Read = Callable[[str], pa.Array]
"""A column's values in a slice: float64, or dictionary-encoded strings; null where there is none."""

ARITHMETIC = {ast.Add: pc.add, ast.Sub: pc.subtract, ast.Mult: pc.multiply, ast.Div: pc.divide, ast.Pow: pc.power}
COMPARE = {
    ast.Eq: pc.equal,
    ast.NotEq: pc.not_equal,
    ast.Lt: pc.less,
    ast.LtE: pc.less_equal,
    ast.Gt: pc.greater,
    ast.GtE: pc.greater_equal,
}
NUMERIC: Mapping[str, Callable[..., pa.Array]] = {
    "abs": pc.abs,
    "sqrt": pc.sqrt,
    "log": pc.ln,
    "exp": pc.exp,
    "min": lambda a, b: pc.min_element_wise(a, b, skip_nulls=False),
    "max": lambda a, b: pc.max_element_wise(a, b, skip_nulls=False),
}
TEXTUAL = {"startswith": pc.starts_with, "contains": pc.match_substring}


def evaluate(expression: Expression, read: Read, rows: int) -> pa.Array:
    """The value of an expression whose kinds fit (`Expression.kind`) for each of `rows` documents: float64 or boolean."""
    found = _value(expression, expression.body, read)
    return pa.repeat(found, rows) if isinstance(found, pa.Scalar) else found


def _value(whole: Expression, node: ast.expr, read: Read) -> pa.Array | pa.Scalar:
    if (column := whole.column(node)) is not None:
        return read(column)
    if isinstance(node, ast.Constant):
        return pa.scalar(node.value if isinstance(node.value, str) else float(node.value))
    if isinstance(node, ast.BoolOp):
        found = _value(whole, node.values[0], read)
        for other in node.values[1:]:
            both = pc.and_kleene if isinstance(node.op, ast.And) else pc.or_kleene
            found = both(found, _value(whole, other, read))
        return found
    if isinstance(node, ast.UnaryOp):
        operand = _value(whole, node.operand, read)
        if isinstance(node.op, ast.UAdd):
            return operand
        return pc.invert(operand) if isinstance(node.op, ast.Not) else pc.negate(operand)
    if isinstance(node, ast.BinOp):
        return _finite(_unchecked(whole, node, read))
    if isinstance(node, ast.Call):
        arguments = [_value(whole, each, read) for each in node.args]
        if (function := called(node)) in NUMERIC:
            return _finite(NUMERIC[function](*arguments))
        return _of_texts(arguments[0], lambda texts: TEXTUAL[function](texts, arguments[1].as_py()))
    found = None
    for left, operator, right in compared(node):
        one = _compared(whole, left, operator, right, read)
        found = one if found is None else pc.and_kleene(found, one)
    return found


def _unchecked(whole: Expression, node: ast.expr, read: Read) -> pa.Array | pa.Scalar:
    """A result that may not be finite. Of what is not, sums and products are not either: they are checked once, as a whole."""
    if not isinstance(node, ast.BinOp):
        return _value(whole, node, read)
    below = _unchecked if isinstance(node.op, ast.Add | ast.Sub | ast.Mult) else _value
    return ARITHMETIC[type(node.op)](below(whole, node.left, read), below(whole, node.right, read))


def _compared(whole: Expression, left: ast.expr, operator: ast.cmpop, right: ast.expr, read: Read) -> pa.Array:
    value = _value(whole, left, read)
    if isinstance(operator, ast.Is | ast.IsNot):
        return pc.is_null(value) if isinstance(operator, ast.Is) else pc.is_valid(value)
    if isinstance(operator, ast.In | ast.NotIn):
        wanted = pa.array([each.value if isinstance(each.value, str) else float(each.value) for each in right.elts])

        def one_of(values: pa.Array) -> pa.Array:
            if not pa.types.is_string(values.type):
                values = pc.add(values, 0.0)  # -0.0 is 0, but to a set another value
            found = pc.is_in(values, wanted)
            return pc.if_else(pc.is_valid(values), pc.invert(found) if isinstance(operator, ast.NotIn) else found, None)

        return _of_texts(value, one_of)
    other = _value(whole, right, read)
    if isinstance(other, pa.Scalar):
        return _of_texts(value, lambda values: COMPARE[type(operator)](values, other))
    if isinstance(value, pa.Scalar):
        return _of_texts(other, lambda values: COMPARE[type(operator)](value, values))
    return COMPARE[type(operator)](_plain(value), _plain(other))


def _of_texts(values: pa.Array | pa.Scalar, function: Callable[[pa.Array], pa.Array]) -> pa.Array:
    """A function of one column; of dictionary-encoded texts, computed once for each distinct one."""
    if isinstance(values, pa.DictionaryArray):
        return function(values.dictionary).take(values.indices)
    return function(values)


def _plain(values: pa.Array) -> pa.Array:
    return values.dictionary_decode() if isinstance(values, pa.DictionaryArray) else values


def _finite(values: pa.Array | pa.Scalar) -> pa.Array | pa.Scalar:
    if isinstance(values, pa.Array) and not values.null_count and np.isfinite(values.to_numpy()).all():
        return values  # as it mostly is: faster than to make a copy
    return pc.if_else(pc.is_finite(values), values, pa.scalar(None, pa.float64()))
