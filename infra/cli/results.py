"""The part of the `fabrating` command that looks at what is there: inspect, report, open, judge, leaks."""

import json
import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from infra.cli import terminal
from infra.cli.options import (
    JsonOption,
    RootOption,
    SetOption,
    WorkersOption,
    parse,
    pool_of,
    read_json,
    reading,
    reading_if_made,
)
from tasks.cores import limited
from tasks.errors import InputError
from tasks.records import caveats
from tasks.records.layout import KINDS, LADDERS, REPORT, RUNS, VERDICTS, PoolFolder, RunFolder
from tasks.records.verdict import Control, Pairing
from tasks.spec import BUNDLE, Arm, Pool, Questions, Score, Texts, spelled_out
from tasks.store.root import DEFAULT_ROOT, Root


def inspect(
    what: Annotated[
        str | None,
        typer.Argument(
            help="Raw data (a URL or folder), a run (its name, or a part of it), or an artifact such as arms/NAME/text."
        ),
    ] = None,
    text_column: Annotated[str | None, typer.Option(help="The column that holds a document's text.")] = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="Columns of ratings: one name, or columns and weights as JSON. Default: those that are found."
        ),
    ] = None,
    id_column: Annotated[str | None, typer.Option(help="The column that holds a document's id.")] = None,
    root: RootOption = DEFAULT_ROOT,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what raw data holds (files, columns, rows, scores), what is known of a run, or what an artifact's manifest says.

    With --set any other field of the pool, such as format=unrated, or sources='{"top16": "az://...", "rand16": "az://..."}' instead of WHAT.
    """
    of_root = what is not None and (what.split("/")[0] in KINDS or not _is_place(what))
    store = reading_if_made(root) if of_root else None
    if what and store and (run := _run(store, what)):
        from tasks.reports.ledger import facts

        terminal.show(facts(store, run), as_json)
        return
    if what and what.split("/")[0] in KINDS:
        manifest = store.find(what.rstrip("/")) if store else None
        if manifest is None:
            raise InputError(f"There is no complete artifact {what} under {root}: check the name and --root.")
        terminal.show(json.loads(manifest.to_json()), as_json)
        return
    if what and "/" not in what and not Path(what).exists():
        raise InputError(f"There is neither a run nor a folder {what!r}: `fabrating ls runs` lists the runs there are.")
    from tasks.corpus.pool.survey import survey

    fields = parse(settings, ("source", "text_column", "score"), Pool)
    fields |= {"text_column": text_column} if text_column else {}
    fields |= {"score": _weights(score) if score.startswith("{") else {score: 1.0}} if score else {}
    pool = pool_of(what, fields)
    found = {name: survey(url, pool=pool, ids=id_column) for name, url in pool.urls.items()}
    if as_json:
        terminal.show(found if pool.sources else found[""], True)
        return
    for name, each in found.items():
        terminal.show({"source": name, **each} if name else each, False)


def report(
    name: Annotated[str, typer.Argument(help="A run, a verdict or a ladder: its name, or a part that no other has.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run, a verdict or a ladder: one HTML page that needs no network. Prints where it lies."""
    from tasks.records.inventory import find
    from tasks.reports.report import write_report

    store = reading(root)
    path = write_report(store, find(store, name, [RUNS, VERDICTS, LADDERS]).id)
    terminal.show({"report": path.as_uri()}, as_json)


def open_report(
    name: Annotated[str, typer.Argument(help="A run, a verdict or a ladder: its name, or a part that no other has.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Open the report of a run, a verdict or a ladder in the browser, and print its address: the running stack's, which asks for its password, else a file."""
    from infra.local import stack
    from tasks.records.inventory import find
    from tasks.reports.address import VARIABLE, where
    from tasks.reports.report import write_report

    store = reading(root)
    thing = find(store, name, [RUNS, VERDICTS, LADDERS])
    running = stack.load(stack.default_home())
    if running is not None and running.alive("reports"):
        os.environ[VARIABLE] = running.reports
    found = where(store, thing.kind, thing.id, write_report(store, thing.id), stack.default_root()[0])
    opened = (
        not as_json and bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")) and webbrowser.open(found)
    )
    terminal.show(
        {"report": found} | ({} if as_json or opened else {"opened": "no, there is no browser here"}), as_json
    )


def judge(
    arms: Annotated[list[str], typer.Argument(metavar="ARM=RUN,RUN...", help="Two or more arms with their runs.")],
    name: Annotated[str, typer.Option(help="Readable part of the verdict's name.")] = "verdict",
    allow: Annotated[list[str] | None, typer.Option(help="A difference that is meant, such as arm.order.")] = None,
    target: Annotated[
        str,
        typer.Option(
            help="Which documents decide: all, 'lower half' or 'upper half' by score, outside/NAME or questions/NAME."
        ),
    ] = "all",
    pairing: Annotated[
        Pairing,
        typer.Option(help="Pair runs by seed: auto (3 shared seeds or more), seed or none. Choose before looking."),
    ] = "auto",
    outside: Annotated[
        list[str] | None, typer.Option(help="Texts that every run was scored on: NAME of runs/RUN/outside/NAME.")
    ] = None,
    questions: Annotated[
        list[str] | None, typer.Option(help="Questions that every run was asked: NAME of runs/RUN/questions/NAME.")
    ] = None,
    core: Annotated[bool, typer.Option("--core", help="Compare CORE too: every run has been evaluated on it.")] = False,
    control: Annotated[Control | None, typer.Option(help="aa: the arms are equal on purpose.")] = None,
    strata_by: Annotated[
        str | None,
        typer.Option(
            help="The score of halves and deciles, if not that of the arms: an expression, or columns and weights as JSON."
        ),
    ] = None,
    strata: Annotated[
        list[str] | None,
        typer.Option(help="A column of the pool whose parts of the holdout are told apart, such as language."),
    ] = None,
    shorter: Annotated[
        str | None,
        typer.Option(
            metavar="RUN,RUN...",
            help="Runs of the better arm on as many fewer tokens as it saved: do the savings hold?",
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Judge finished runs: which arm is better, by how much, how sure. Writes the verdict and its report.

    It counts as a look at these runs, with those of comparisons, and says what it does otherwise than was registered.
    """
    from tasks.reports.report import write_verdict
    from tasks.verdict import by_hand, shortened
    from tasks.verdict.judge import judge as decide

    store = reading(root)
    runs = {arm: [_run(store, run) or run for run in named] for arm, named in _arms(arms).items()}
    first = next(iter(runs.values()))[0]
    score = _strata(store, first, strata_by) if strata_by else None
    if strata:
        _divide(store, first, strata)
    verdict = decide(
        store,
        name,
        runs,
        allow=allow or (),
        outside=outside or (),
        questions=questions or (),
        core=core,
        target=target,
        control=control,
        pairing=pairing,
        strata_by=score,
        strata_columns=strata or (),
    )
    verdict = by_hand.take(store, verdict)
    if shorter:
        if len(verdict.comparisons) > 1:
            raise InputError("--shorter checks the savings between two arms: judge these two alone.")
        fewer = [_run(store, run) or run for run in shorter.split(",")]
        verdict = shortened.check_savings(store, verdict, verdict.comparisons[0], fewer, score)
    made = write_verdict(store, verdict)
    if as_json:
        terminal.show({"artifact": made.name, **verdict.model_dump(mode="json")}, True)
        return
    names = [f"{pair.a} - {pair.b}" for pair in verdict.comparisons]
    said = dict(zip(names, caveats.own(verdict.comparisons), strict=True)) | caveats.shared(verdict.comparisons)
    terminal.show({**said, "verdict": made.name, "report": (made.path / REPORT).as_uri()}, False)


def leaks(
    arm: Annotated[str, typer.Argument(help="A prepared arm, such as top16-0a1b2c3d4e.")],
    texts: Annotated[
        str | None,
        typer.Argument(
            help="Texts from elsewhere, besides the holdout: a folder or URL of .parquet, .jsonl or .txt files."
        ),
    ] = None,
    texts_name: Annotated[str, typer.Option(help="Readable part of their name.")] = "outside",
    column: Annotated[str, typer.Option(help="Their column, or field of JSON lines, that holds a document.")] = "text",
    documents: Annotated[
        int, typer.Option(help="Documents to take of them, the first by file name and place.")
    ] = 5_000,
    questions: Annotated[
        str | None,
        typer.Option(
            help="Questions, too: a file, folder or URL of .parquet or .jsonl, or bundle for those that FabRating ships."
        ),
    ] = None,
    questions_name: Annotated[
        str | None, typer.Option(help="Readable part of their name; default: bundle, or questions.")
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Count near copies of the holdout, of texts from elsewhere, and of questions, in an arm that is there. `fabrating judge` reads the counts."""
    with limited(workers):
        from flows.leaks import search_arm
        from flows.sequence import Steps

        given = [Texts(name=texts_name, url=texts, column=column, documents=documents)] if texts else []
        named = questions_name or (BUNDLE if questions == BUNDLE else "questions")
        asked = [Questions(name=named, url=questions)] if questions else []
        with terminal.bars() as progress:
            found = search_arm(reading(root), arm, given, Steps(progress), asked)
        terminal.show_rows([{"of": what, **made.facts, "record": made.name} for what, made in found.items()], as_json)


COMMANDS = (inspect, report, open_report, judge, leaks)


def _is_place(what: str) -> bool:
    """Whether it is a URL, or a file or folder that is there."""
    return "://" in what or Path(what).exists()


def _run(root: Root, what: str) -> str | None:
    """The run that is meant, unless it is a URL, a folder, or an artifact. Raises InputError when several fit."""
    from tasks.records.inventory import find, matching

    kind, _, below = what.rstrip("/").partition("/")
    artifact = kind in KINDS and (kind != RUNS or "/" in below)
    if _is_place(what) or artifact or not matching(root, what, [RUNS]):
        return None
    return find(root, what, [RUNS]).id


def _strata(store: Root, run: str, given: str) -> Score:
    """The score that is meant; the holdout of the run's pool is divided by it. Raises InputError."""
    from tasks.corpus.pool.handle import open_known
    from tasks.corpus.prepare import build_strata

    score = spelled_out(Arm.model_validate({"score": _weights(given) if given.startswith("{") else given}).score or {})
    pool = PoolFolder(store.manifest(RunFolder(run).result).inputs["pool"])
    if store.find(pool.strata(score)) is None:
        build_strata(store, open_known(store, pool.id), score)
    return score


def _divide(store: Root, run: str, columns: Sequence[str]) -> None:
    """Read the columns for the holdout of the run's pool, where they are lacking. Raises InputError."""
    from tasks.corpus.division import build_division
    from tasks.corpus.pool.handle import open_known

    pool = PoolFolder(store.manifest(RunFolder(run).result).inputs["pool"])
    for column in columns:
        if store.find(pool.division(column)) is None:
            build_division(store, open_known(store, pool.id), column)


def _arms(given: list[str]) -> dict[str, list[str]]:
    """{arm: runs} of ARM=RUN,RUN arguments. Raises InputError for one that is none, or a label given twice."""
    arms: dict[str, list[str]] = {}
    for argument in given:
        label, equals, runs = argument.partition("=")
        if not (label and equals and runs):
            raise InputError(f"{argument!r} names no runs of an arm: write ARM=RUN or ARM=RUN,RUN.")
        if label in arms:
            raise InputError(f"The arm {label} is given twice: list all its runs at once, {label}=RUN,RUN.")
        arms[label] = runs.split(",")
    return arms


def _weights(given: str) -> Any:
    """Columns and their weights as JSON. Raises InputError for what is none, and for a column with two weights."""
    try:
        return read_json(given)
    except json.JSONDecodeError as error:
        raise InputError(
            f"The score {given} is no JSON ({error}): write '{{\"column\": 1.0}}', or a column's name."
        ) from error
