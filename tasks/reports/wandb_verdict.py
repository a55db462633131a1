"""A verdict as a W&B run in the group of the runs it judges, with tables of arms, pairs, strata, texts, leaks and tasks.

It is sent once the verdict is written and cannot harm it: errors of W&B are logged, and a service that does not answer is given up on.
"""

import logging
import threading
from collections.abc import Callable, Sequence

from tasks.records.layout import RUNS
from tasks.records.verdict import Comparison, Difference, Verdict
from tasks.reports.wandb_run import FINISH_SECONDS, Mode, Wanted, available_mode, start
from tasks.store.artifact import Artifact
from tasks.store.root import Root

log = logging.getLogger(__name__)
CHANCE = ("difference", "low", "high", "p")
BAND = ("band_low", "band_high")
Row = list[str | int | float | None]
Table = tuple[list[str], list[Row]]
"""Names of the columns, and rows."""


def send_verdict(root: Root, made: Artifact, verdict: Verdict, wanted: Wanted) -> None:
    """Send a verdict to W&B; `made` is its artifact, `wanted` is how: see `available_mode`. Never raises for W&B.

    The run's id is the artifact's name, so that sending it again changes nothing. Offline files lie in `runs/.wandb`.
    """
    mode = available_mode(wanted)
    if mode == "disabled":
        return
    thread = threading.Thread(target=_send, args=(root, made, verdict, mode), name="wandb", daemon=True)
    thread.start()
    thread.join(FINISH_SECONDS)
    if thread.is_alive():
        log.warning("W&B did not take the verdict %s within %.0f s; it is in %s.", made.name, FINISH_SECONDS, made.path)


def tables(verdict: Verdict) -> dict[str, Table]:
    """{name: table} of arms, pairs and strata; and where the verdict has them, of outside texts, questions, near copies by arm, and CORE's tasks.

    Differences are bits per byte, but for accuracy and for CORE: centered accuracy, where more is better.
    """
    read = ("trained_documents", "text_share", "mean_score", "arm_mean_score", "epochs")
    arms: list[Row] = [
        [arm.label, arm.arm, arm.bpb, len(arm.seeds), ", ".join(arm.runs), *(getattr(arm, name) for name in read)]
        for arm in verdict.arms
    ]
    pairs = verdict.comparisons
    found = ("label", "what", "documents", "unsearchable", "leaked", "copies", "removed")
    leaks: list[Row] = [[getattr(row, name) for name in found] for row in verdict.near]
    made = {
        "arms": (["label", "arm", "bpb", "seeds", "runs", *read], arms),
        "comparisons": _table(pairs, lambda pair: [pair], ("conclusion", "better", *CHANCE, "seeds", "sentence")),
        "strata": _table(pairs, lambda pair: pair.strata, ("kind", "label", "documents", "bytes", *CHANCE, *BAND)),
        "outside": _table(pairs, lambda pair: pair.outside, ("label", *CHANCE), label="texts"),
        "questions": _table(pairs, lambda pair: pair.questions, ("label", "questions", *CHANCE)),
        "accuracy": _accuracies(pairs),
        "leaks": (["arm", *found[1:]], leaks),
        "core": _table(
            pairs, lambda pair: pair.tasks, ("label", "a", "b", *CHANCE), label="task", a="accuracy a", b="accuracy b"
        ),
    }
    return {name: table for name, table in made.items() if table[1]}


def _table(
    pairs: Sequence[Comparison],
    rows_of: Callable[[Comparison], Sequence[Difference]],
    fields: Sequence[str],
    **titles: str,
) -> Table:
    """The arms of each pair, then these fields of its rows, under titles of their own where given."""
    rows = [[pair.a, pair.b, *(getattr(row, field) for field in fields)] for pair in pairs for row in rows_of(pair)]
    return ["a", "b", *(titles.get(field, field) for field in fields)], rows


def _accuracies(pairs: Sequence[Comparison]) -> Table:
    """Of questions with choices, by log-likelihood and by log-likelihood per character."""
    rows: list[Row] = []
    for pair in pairs:
        for asked in pair.questions:
            for kind, found in (("sum", asked.accuracy), ("per character", asked.accuracy_normed)):
                if found is not None:
                    chance = [getattr(found, name) for name in CHANCE]
                    rows.append([pair.a, pair.b, asked.label, kind, found.a, found.b, *chance])
    return ["a", "b", "questions", "by", "accuracy a", "accuracy b", *CHANCE], rows


def _send(root: Root, made: Artifact, verdict: Verdict, mode: Mode) -> None:
    try:
        import wandb  # slow to import, and broken installations must not matter

        folder = root.path(RUNS) / ".wandb"
        folder.mkdir(parents=True, exist_ok=True)
        run = start(made.path.name, verdict.pool, mode, folder, job_type="verdict")
        try:
            made_of = {
                name: wandb.Table(columns=list(head), data=rows) for name, (head, rows) in tables(verdict).items()
            }
            run.log({f"verdict/{name}": table for name, table in made_of.items()})
            for pair in verdict.comparisons:
                run.summary[f"{pair.a} - {pair.b}"] = pair.sentence
        finally:
            run.finish()
    except Exception as error:  # whatever W&B does, the verdict stands
        log.warning("W&B is out of order (%s: %s).", type(error).__name__, str(error).split("\n")[0])
