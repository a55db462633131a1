"""A verdict as a W&B run of its own beside the runs it judges: the same group, tables of arms, pairs, strata, texts and tasks.

Sent after the fact and never at the verdict's cost: what W&B does is logged, and a service that does not answer is left.
"""

import logging
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.records.layout import RUNS
from tasks.reports.wandb_run import FINISH_SECONDS, PROJECT, available_mode
from tasks.store.artifact import Artifact
from tasks.store.root import Root

log = logging.getLogger(__name__)
PAIR = ("a", "b", "conclusion", "better", "difference", "low", "high", "p", "seeds", "sentence")
STRATUM = ("a", "b", "kind", "label", "documents", "bytes", "difference", "low", "high", "p")
OUTSIDE = ("a", "b", "texts", "difference", "low", "high", "p")
CORE = ("a", "b", "task", "accuracy a", "accuracy b", "difference", "low", "high", "p")


def send_verdict(root: Root, made: Artifact, verdict: Mapping[str, Any], wanted: str) -> None:
    """Send a verdict to W&B; `made` is its artifact, `wanted` is "online", "offline" or "disabled". Never raises for W&B.

    The run's id is the artifact's name, so that sending it again changes nothing. Offline files lie in `runs/.wandb`.
    """
    mode = available_mode(wanted)
    if mode == "disabled":
        return
    thread = threading.Thread(target=_send, args=(root, made, verdict, mode), name="wandb", daemon=True)
    thread.start()
    thread.join(FINISH_SECONDS)
    if thread.is_alive():
        log.warning("W&B did not take the verdict %s in %.0f s; it is in %s.", made.name, FINISH_SECONDS, made.path)


def tables(verdict: Mapping[str, Any]) -> dict[str, tuple[list[str], list[list[Any]]]]:
    """{name: (columns, rows)} of arms, pairs and strata; and where the verdict has them, of outside texts and CORE's tasks.

    Differences are bits per byte, but for CORE: centered accuracy, where more is better.
    """
    arms = [
        [arm["label"], arm["arm"], arm["bpb"], len(arm["seeds"]), ", ".join(arm["runs"])] for arm in verdict["arms"]
    ]
    pairs = verdict["comparisons"]
    strata = [{**row, "a": pair["a"], "b": pair["b"]} for pair in pairs for row in pair["strata"]]
    outside = [
        {**row, "a": pair["a"], "b": pair["b"], "texts": row["label"]} for pair in pairs for row in pair["outside"]
    ]
    core = [
        {**row, "a": pair["a"], "b": pair["b"], "task": row["label"], "accuracy a": row["a"], "accuracy b": row["b"]}
        for pair in pairs
        for row in pair["tasks"]
    ]
    made = {
        "arms": (["label", "arm", "bpb", "seeds", "runs"], arms),
        "comparisons": (list(PAIR), _rows(pairs, PAIR)),
        "strata": (list(STRATUM), _rows(strata, STRATUM)),
        "outside": (list(OUTSIDE), _rows(outside, OUTSIDE)),
        "core": (list(CORE), _rows(core, CORE)),
    }
    return {name: (columns, rows) for name, (columns, rows) in made.items() if rows}


def _rows(records: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[list[Any]]:
    return [[record[column] for column in columns] for record in records]


def _send(root: Root, made: Artifact, verdict: Mapping[str, Any], mode: str) -> None:
    try:
        import wandb  # slow to import, and broken installations must not matter

        folder = root.path(RUNS) / ".wandb"
        folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=PROJECT,
            id=made.path.name,
            name=made.path.name,
            group=verdict["pool"],
            job_type="verdict",
            resume="allow",
            mode=mode,
            dir=str(folder),
            settings=wandb.Settings(console="off", silent=True),
        )
        try:
            made_of = {name: wandb.Table(columns=head, data=rows) for name, (head, rows) in tables(verdict).items()}
            run.log({f"verdict/{name}": table for name, table in made_of.items()})
            for pair in verdict["comparisons"]:
                run.summary[f"{pair['a']} - {pair['b']}"] = pair["sentence"]
        finally:
            run.finish()
    except Exception as error:  # whatever W&B does, the verdict stands
        log.warning("W&B is out of order (%s: %s).", type(error).__name__, str(error).split("\n")[0])
