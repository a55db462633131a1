"""What a blob store holds, before anything is spent on it."""

from typing import Any

from prefect import flow

from flows.deployed import as_deployed, named
from tasks.corpus.pool.survey import survey as read_survey
from tasks.reports.steps import show_survey
from tasks.spec import Pool
from tasks.steps import step


@flow(name="survey", flow_run_name=named("{data.name}"))
@as_deployed
def survey(data: Pool = Pool()) -> dict[str, Any]:
    """Read the footers of a data set and a few of its rows, and say what it holds; of several sources, what each holds.

    Args:
        data: The pool: where the documents are, and which columns are their text and scores.
    """
    found = {name: _survey(f"{data.name} {name}".strip(), url, data) for name, url in data.urls.items()}
    return found if data.sources else found[""]


def _survey(label: str, url: str, data: Pool) -> dict[str, Any]:
    found = step(f"Survey of {label}", lambda _: read_survey(url, pool=data))
    show_survey(label, found)
    return found
