"""What the Prefect UI shows of an experiment: plan, preparation, where runs stand, loss curve, scores, verdict. Called in a flow or task."""

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from tasks.escaping import markdown
from tasks.records.cost import CostEstimate
from tasks.records.ladder import Ladder
from tasks.records.layout import LADDERS, METRICS, REPORT, RUNS, VERDICTS, RunFolder
from tasks.records.verdict import Verdict
from tasks.reports import artifacts
from tasks.reports.address import address
from tasks.reports.artifacts import rounded
from tasks.reports.ladder import ladder_markdown
from tasks.reports.live import Standing, followed
from tasks.reports.report import leave_report
from tasks.spec import Experiment
from tasks.steps import cells, key, log, show_link, show_markdown, show_table
from tasks.store.artifact import Artifact
from tasks.store.root import Root


def show_survey(name: str, found: Mapping[str, Any]) -> None:
    """What a data set holds: its columns, and its numbers with what a typical arm would read."""
    columns = [
        {"column": column, **{k: str(v) for k, v in facts.items()}} for column, facts in found["columns"].items()
    ]
    show_table(key("columns", name), columns, "Columns, their types and bytes")
    show_markdown(key("survey", name), artifacts.survey_markdown(name, found), "What lies there")


def show_plan(experiment: Experiment, plan: Mapping[str, Any], costs: Sequence[CostEstimate]) -> None:
    """Before anything is spent: documents, tokens, steps, time and cost. Shown again when the arm is packed, it is exact."""
    text = artifacts.plan_markdown(experiment, plan, costs)
    show_markdown(key("plan", experiment.arm.name), text, "Plan and cost")


def show_estimate(name: str, costs: Sequence[CostEstimate], notes: Sequence[str]) -> None:
    """What one or several runs would cost."""
    show_markdown(key("estimate", name), artifacts.estimate_markdown(costs, notes), "Estimated cost")


def show_prepared(arm_id: str, facts: Mapping[str, Any]) -> None:
    """What preparing an arm counted."""
    show_markdown(key("prepared", arm_id), artifacts.prepared_markdown(arm_id, facts), "What was prepared")


@contextlib.contextmanager
def show_standing(name: str, standing: Callable[[], Standing], pages: Mapping[str, str]) -> Iterator[None]:
    """Keep one table of runs up to date while the block runs. `pages`: of runs whose flow runs have started, their addresses."""

    def rows(now: Standing) -> list[dict[str, Any]]:
        """Addresses come last: the second UI shows a link as it is written, and cuts what stands right of it."""
        linked = []
        for row, shown in zip(now.rows, cells(now.rows), strict=True):
            page = pages.get(str(row["run"]))
            linked.append(shown | ({"page": f"[open]({page})" if page else ""} if pages else {}))
        return linked

    first = standing()
    table = show_table(key("runs", name), first.rows, first.summary)
    if table is None:
        yield
        return

    def show(now: Standing) -> None:
        update = ArtifactUpdate(data=json.dumps(rows(now)), description=markdown(now.summary))
        with get_client(sync_client=True) as client:
            client.update_artifact(table, update)

    with followed(standing, show, log(), first):
        yield


def show_loss_curve(
    root: Root, run_ids: Sequence[str], labels: Sequence[str] | None = None, name: str | None = None
) -> None:
    """The loss curves of one or several runs, as far as they have come; equal labels are seeds of one arm."""
    files = [metrics_file(root, run) for run in run_ids]
    text = artifacts.loss_curve_markdown(files, labels or run_ids, name or ", ".join(run_ids))
    show_markdown(key("loss", name or run_ids[0]), text, "Bits per byte and training loss over trained tokens")


def show_scores(root: Root, name: str, runs: Mapping[str, Experiment]) -> None:
    """Bits per byte in all, one row a finished run, and one row a score decile. `runs`: {run id: what it trained}."""
    results = [
        {"run": run, "arm": experiment.arm.name, "seed": experiment.seed, **root.manifest(RunFolder(run).result).facts}
        for run, experiment in runs.items()
    ]
    show_table(key("scores", name), artifacts.scores_table(results), "Bits per byte on the common holdout")
    if deciles := artifacts.deciles_table(results):
        show_table(key("deciles", name), deciles, "Bits per byte by score decile of the holdout's documents")


def show_outside(run: str, scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Bits per byte of one run on texts from elsewhere; `scores`: {name of the texts: facts}."""
    rows = [{"texts": name, "bits per byte": rounded(facts["bpb"])} for name, facts in scores.items()]
    show_table(key("outside", run), rows, "Bits per byte on texts from elsewhere")


def show_questions(run: str, answers: Mapping[str, Mapping[str, Any]]) -> None:
    """Bits per byte of right answers and accuracies of one run; `answers`: {name of the questions: facts}."""
    rows = [
        {
            "questions": name,
            "asked": facts["questions"],
            "bits per byte": rounded(facts["bpb"]),
            "accuracy": rounded(facts.get("accuracy")),
            "per character": rounded(facts.get("accuracy_normed")),
        }
        for name, facts in answers.items()
    ]
    show_table(key("questions", run), rows, "Bits per byte of right answers")


def show_core(run: str, facts: Mapping[str, Any]) -> None:
    """CORE of one run, and accuracy of each of its tasks."""
    rows: list[dict[str, Any]] = [{"task": "CORE", "accuracy": None, "centered": rounded(facts["core"])}]
    rows += [{"task": name} | {k: rounded(v) for k, v in values.items()} for name, values in facts["tasks"].items()]
    show_table(key("core", run), rows, "Accuracy; centered: 0 is guessing")


def show_report(root: Root, kind: str, id: str, path: Path) -> str:
    """Link the report of a run, a verdict or a ladder (`kind`), where a stack serves it. Returns its address, else that of its file."""
    if (link := address(root, kind, id)) is not None:
        show_link(key("report", id), link, f"Report of {id}", "Report, behind the password of the stack")
    return link or path.as_uri()


def show_run_report(root: Root, run: str) -> None:
    """Write the report of a finished run, link it, and say where it is: the last line of its log."""
    if (path := leave_report(root, run)) is not None:
        log().info("Report: %s", show_report(root, RUNS, run, path))


def show_verdict(root: Root, made: Artifact, verdict: Verdict) -> str:
    """Which arm is better, by how much, how sure; and where the report of the verdict's artifact `made` is. Returns its address."""
    fetch = f"fabrating report {made.path.name} --root {root.url}" if root.remote else None
    report = show_report(root, VERDICTS, made.path.name, made.path / REPORT)
    text = artifacts.verdict_markdown(verdict, report, fetch)
    show_markdown(key("verdict", verdict.name), text, " ".join(verdict.sentences))
    return report


def show_ladder(root: Root, made: Artifact, ladder: Ladder) -> str:
    """What comparisons at several scales predict of a larger one; `made` is the ladder's artifact. Returns its report's address."""
    report = show_report(root, LADDERS, made.path.name, made.path / REPORT)
    show_markdown(key("ladder", ladder.name), ladder_markdown(ladder, report), " ".join(ladder.sentences))
    return report


def metrics_file(root: Root, run: str) -> Path:
    """A run's metrics: the live file where the run is on this machine, else the copy in its result."""
    live = root.path(RunFolder(run).file(METRICS))
    return live if live.is_file() else root.open(RunFolder(run).result).path / METRICS
