"""A form asks for source and root first, and next for what people set most, and nobody's source is said to be lacking before anything is spent."""

import pytest
import yaml
from prefect.utilities.callables import parameter_schema

from flows.compare import compare
from flows.experiment import experiment
from flows.prepare import prepare
from infra.local.deploy import PROJECT
from tasks.errors import InputError
from tasks.spec import Pool


@pytest.mark.parametrize("flow", [experiment, prepare, compare], ids=lambda flow: flow.name)
def test_source_and_root_come_first(flow) -> None:
    assert list(parameter_schema(flow).properties)[:2] == ["data", "root"]
    assert next(iter(Pool.model_json_schema()["properties"])) == "source"


def test_a_form_sorts_its_fields_by_their_positions_to_the_lowest_level() -> None:
    """Prefect's form does, at every level; PostgreSQL sorts the keys of what it stores."""
    schema = parameter_schema(compare).model_dump_for_openapi()
    for each in (schema, *schema["definitions"].values()):
        fields = list(each["properties"].values())
        assert [field["position"] for field in fields] == list(range(len(fields)))
    assert list(schema["properties"])[2:7] == ["arms", "train", "name", "replicates", "stop"]
    assert list(schema["definitions"]["Training"]["properties"])[:2] == ["depth", "tokens"]


def test_a_source_is_set_once_for_all_deployments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FABRATING_SOURCE", raising=False)
    deployed = yaml.safe_load((PROJECT / "deployments/prefect.yaml").read_text())["deployments"]
    (top16,) = (each["parameters"]["data"] for each in deployed if each["name"] == "top16")
    with pytest.raises(
        InputError, match=r"No source is given: fill in data\.source, or set FABRATING_SOURCE \(and FABRATING_ROOT,"
    ):
        _ = Pool(**top16).address
    monkeypatch.setenv("FABRATING_SOURCE", "az://raw/web")
    pool = Pool(**top16)
    assert (pool.urls, pool.identity()["source"]) == ({"": "az://raw/web"}, "az://raw/web")
    assert Pool(**top16 | {"source": "az://raw/other"}).urls == {"": "az://raw/other"}
    assert Pool(**top16 | {"sources": {"a": "az://raw/a"}}).urls == {"a": "az://raw/a"}
    monkeypatch.setenv("FABRATING_SOURCE", "https://a.blob.core.windows.net/raw?sig=SECRET")
    with pytest.raises(InputError, match="carries a signature"):
        _ = Pool(**top16).address
