"""No form takes a URL with a signature: the server refuses it by the form's schema, before it stores anything."""

import pytest
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from prefect.utilities.schema_tools.validation import ValidationError

from flows import compare, design, estimate, experiment, ladder, prepare, ready, score, train, transfer

SIGNED = "https://acme.blob.core.windows.net/raw/web?sv=2022-11-02&sig=SECRETSIGNATURE"
ROOTED = [
    *(compare.compare, design.design, estimate.estimate, experiment.experiment, ladder.ladder, prepare.prepare),
    *(ready.compare_subsets, ready.train_on_subset, score.score, train.train),
]
PLACES = [(flow, {"root": SIGNED}) for flow in ROOTED]
PLACES += [
    (flow, {name: value})
    for flow in (ready.compare_subsets, ready.train_on_subset)
    for name, value in {
        "holdout": SIGNED,
        "sources": {"a": SIGNED, "b": "az://raw/b"},
        "data": {"holdout": SIGNED},
    }.items()
]
PLACES += [(transfer.shards, {"source_root": SIGNED}), (transfer.shards, {"target_root": SIGNED})]


@pytest.mark.parametrize(("flow", "given"), PLACES, ids=lambda value: getattr(value, "name", None) or next(iter(value)))
def test_a_signature_is_refused_and_a_plain_url_is_not(flow, given):
    def check(parameters):
        validate(parameters, parameter_schema(flow).model_dump(), raise_on_error=True, ignore_required=True)

    with pytest.raises(ValidationError):
        check(given)
    plain = lambda value: {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else "az://raw/web#2"  # noqa: E731
    check(plain(given))
    check({name: "" for name in given if name.endswith("_root")})
