"""What lies in a blob store, before anything is spent on it."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.deployed import as_deployed, named
from tasks import steps as show
from tasks.corpus.pool.survey import survey as read_survey
from tasks.spec import Pool

look = task(read_survey, name="survey", retries=3, retry_delay_seconds=10, retry_condition_fn=show.retryable)


@flow(name="survey", flow_run_name=named("{data.name}"))
@as_deployed
def survey(data: Pool = Pool()) -> dict[str, Any]:
    """Read the footers of a data set and a few of its rows, and say what it holds.

    Args:
        data: The pool: where the documents are, and which columns are their text and scores.
    """
    found = look(data.source, pool=data)
    columns = [{"column": name, **{k: str(v) for k, v in facts.items()}} for name, facts in found["columns"].items()]
    create_table_artifact(columns, key=show.key("columns", data.name), description="Columns, their types and bytes")
    overview = {**{k: v for k, v in found.items() if isinstance(v, str | int | float)}, **found["arm"]}
    rows = [f"| {name} | {value} |" for name, value in overview.items()]
    text = "\n".join([f"## {data.name}", "", "| | |", "| --- | ---: |", *rows])
    create_markdown_artifact(text, key=show.key("survey", data.name), description="What lies there")
    return found
