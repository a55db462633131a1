"""What a form's schema takes, by which the server decides, its flow takes too, and the other way round."""

from itertools import product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prefect.exceptions import ParameterTypeError
from prefect.utilities.schema_tools import is_valid_schema, validate

from tests.forms import COUNTS, FORMS, values

MEANT = {"where", "score", "strata_by", "first_look", "max_replicates"}
"""Expressions, and numbers that depend on one another: a schema sees their shape, the flow their meaning."""
TYPES = {"integer": int, "number": int | float, "string": str, "array": list, "object": dict, "null": type(None)}
QUICK = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
each_form = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.flow.fn.__name__)


def taken(form, parameters):
    """Whether the flow takes them; what it says else must be meant for a person."""
    try:
        form.flow.validate_parameters(parameters)
    except ParameterTypeError:
        return False
    return True


@each_form
def test_every_number_has_both_bounds_and_every_text_a_shape(form):
    is_valid_schema(form.schema)
    for path, schema in form.places():
        if schema.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(schema) and {"maximum", "exclusiveMaximum"} & set(schema), path
        if schema.get("type") == "string":
            assert {"enum", "const", "pattern"} & set(schema), path
        if schema.get("type") == "array":
            assert "maxItems" in schema, path


def test_numbers_as_people_write_them_are_taken_by_schema_and_flow_alike():
    (form,) = (form for form in FORMS if form.flow.fn.__name__ == "experiment")
    both = {"integer", "string"}
    written = [path for path, each in form.places() if both <= {one.get("type") for one in each.get("anyOf", ())}]
    assert {("train", "tokens"), ("arm", "tokens"), ("data", "holdout_documents")} < set(written)
    for path, text in product(written, COUNTS):
        parameters = form.filled(path, text)
        assert (not validate(parameters, form.schema)) == taken(form, parameters), (path, text)


def test_a_ladders_form_begins_with_its_depths():
    (form,) = (form for form in FORMS if form.flow.fn.__name__ == "ladder")
    shown = sorted(form.schema["properties"], key=lambda name: form.schema["properties"][name]["position"])
    assert shown[:2] == ["to", "depths"] and shown[-1] == "most"


@each_form
def test_schema_and_flow_agree_at_the_bounds_and_beyond(form):
    places = form.places()

    @QUICK
    @given(st.data())
    def agree(data):
        path, schema = data.draw(st.sampled_from(places))
        value = data.draw(values(schema))
        parameters = form.filled(path, value)
        if path == ("no_such_field",):
            assert validate(parameters, form.schema)
            return
        errors = validate(parameters, form.schema)
        if not errors and not MEANT & set(path):
            assert taken(form, parameters), (path, value)
        of_its_type = isinstance(value, TYPES.get(schema.get("type"), ())) and not isinstance(value, bool)
        if errors and of_its_type:
            assert not taken(form, parameters), (path, value, errors)

    agree()
