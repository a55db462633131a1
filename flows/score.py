"""Score a finished run on texts from elsewhere, on questions and on nanochat's CORE tasks: what a comparison scores besides the holdout."""

from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from flows.prepare import TaskSteps
from flows.sequence import encode_beside
from tasks.cores import limited
from tasks.engines import steps as engines
from tasks.records.job import find_job
from tasks.reports.steps import show_core, show_outside, show_questions
from tasks.spec import Cores, Id, QuestionSets, Texts, Url, asked
from tasks.store.root import DEFAULT_ROOT, Root

# The run form shows plain default values, not ones that a function makes.
TEXTS: list[Texts] = []
QUESTIONS: QuestionSets = []


@flow(name="score", flow_run_name="{run}")
def score(
    run: Id,
    texts: Annotated[list[Texts], Field(max_length=64)] = TEXTS,
    questions: QuestionSets = QUESTIONS,
    core: bool = False,
    root: Url = DEFAULT_ROOT,
    workers: Cores | None = None,
) -> dict[str, Any]:
    """Score the final weights of a finished run on texts from elsewhere, on questions, and on nanochat's CORE tasks.

    What has been scored already is not scored again.

    Args:
        run: Name of a finished run, such as top16-d20-s1-0a1b2c3d4e: a folder below runs/ of the root.
        texts: Folders of texts that no arm has trained on: bits per byte of each, per document.
        questions: Sets of questions with right answers, or bundle for the ones that FabRating ships: bits per byte of the right
            answers, and accuracy where there are choices.
        core: Also nanochat's CORE tasks. Needs nanochat and its evaluation bundle on the worker's host.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
        workers: Cores that encoding and scoring on a CPU take; empty: FABRATING_WORKERS, else all.
    """
    store = Root(root, make=False)
    with limited(workers):
        pool = find_job(store, run).pool_id
        encoded, sets = encode_beside(store, pool, texts, asked(questions), TaskSteps())
        scores = {made.path.name: engines.score_outside(root, run, made.path.name) for made in encoded}
        answers = {made.path.name: engines.score_questions(root, run, made.path.name) for made in sets}
        of_core = engines.core(root, run) if core else None
    found: dict[str, Any] = {"run": run, **scores}
    if scores:
        show_outside(run, scores)
    if answers:
        show_questions(run, answers)
        found["questions"] = answers
    if of_core:
        show_core(run, of_core)
        found["core"] = of_core
    return found
