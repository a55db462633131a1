"""The part of the `fabrating` command that answers a question from one file: init writes it, compare runs it here, launch sends it."""

import contextlib
import logging
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from infra.cli import terminal
from infra.cli.experiment import has_gpu
from infra.cli.options import JsonOption, pool_of, root_of
from tasks.engines.turns import visible_gpus
from tasks.errors import InputError, InterruptedRun
from tasks.records.layout import REPORT
from tasks.spec.written import example, read
from tasks.store.root import Root

if TYPE_CHECKING:
    from flows.comparison import Hands
    from tasks.progress import Progress
    from tasks.records.cost import CostEstimate
    from tasks.records.ladder import Ladder
    from tasks.records.verdict import Verdict
    from tasks.reports.live import Standing
    from tasks.spec import Training
    from tasks.store.artifact import Artifact
    from tasks.verdict.comparison import ComparisonPlan, ComparisonSpec, PlannedRun
    from tasks.verdict.form import ComparisonForm

log = logging.getLogger(__name__)
T = TypeVar("T")
FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The experiment: a YAML file as `fabrating init` writes.")
]
TITLE = """An experiment: which of these arms is better to train on?

fabrating compare {file}    prepares, trains and judges on this machine; run it again after an interruption, and it resumes
fabrating launch {file}     runs the same on a Prefect server and its workers

A field behind a # has this value already: take the # away to change it."""


def init(
    file: Annotated[Path, typer.Argument(metavar="FILE")] = Path("experiment.yaml"),
    data: Annotated[
        str | None,
        typer.Option(help="Raw data, a URL or folder: its columns and a size that suits it are filled in."),
    ] = None,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--cpu", help="What --data sizes it for. Default: what this machine has.")
    ] = None,
) -> None:
    """Write an example experiment with every field and what it means, to be run by `compare` or `launch`."""
    from tasks.verdict.form import EXAMPLE

    if gpu is not None and not data:
        flag = "--gpu" if gpu else "--cpu"
        raise InputError(f"{flag} sizes what --data fills in, but --data is not given: give both, or leave out {flag}.")
    if file.exists():
        raise InputError(f"{file} is there already: name another file, or remove it.")
    form, others = _first(data, has_gpu() if gpu is None else gpu) if data else (EXAMPLE, [])
    try:
        with file.open("x") as out:
            out.write(example(form, TITLE.format(file=file)))
    except OSError as error:
        raise InputError(
            f"{file} cannot be written ({error.strerror}): name a file in a folder that is there."
        ) from None
    shown = {"experiment": str(file)}
    if data:
        ratings = list(form.data.score)
        shown |= {
            "arms": f"{100 * form.arms[0].share:.0f} % of the documents each: the best-rated, and random ones",
            "texts from": form.data.text_column,
            "ranked by": f"{'the mean of ' * (len(ratings) > 1)}{', '.join(ratings)}",
        } | ({"other numbers": ", ".join(others)} if others else {})
        shown["runs"] = f"{form.replicates} of each arm, of {form.train.tokens:,} tokens at depth {form.train.depth}"
    then = "check data, arms and train" if data else "set data and arms"
    terminal.show(shown | {"next": f"{then} in it, then fabrating compare {file}"}, False)


def _first(data: str, gpu: bool) -> "tuple[ComparisonForm, list[str]]":
    """The best-rated fifth of some data against a random one; and the columns of numbers that rank nothing there."""
    from infra.local.launch import whole
    from tasks.corpus.pool.survey import survey
    from tasks.verdict.first import first_experiment

    pool = pool_of(whole(data, place=True), {})  # the file may be read from another folder
    found = survey(pool.urls[""], pool=pool)
    text, score = found["likely_columns"]["text_column"], found["likely_columns"]["score"]
    if not text or not score:
        raise InputError(
            f"{data} has no column of {'ratings' if text else 'text'} (it has {', '.join(found['columns'])}): give data with one, or write "
            "the experiment yourself, from what init writes without --data."
        )
    column = text if text in found["columns"] else text.partition(".")[0]  # of a field the whole struct
    size, documents = found["columns"][column]["bytes_decoded"], found["documents"]
    if "note" in found:  # of JSON lines only the first were read
        part = min(1.0, found["read"]["bytes_read"] / max(1, found["bytes"]))
        size, documents = size / part, documents / part
    return first_experiment(pool, text, score, documents, size, gpu), found["likely_columns"]["others"]


def compare(file: FileArgument, as_json: JsonOption = False) -> None:
    """Prepare, train and judge an experiment on this machine, without a server. Run it again after an interruption, and it resumes.

    Exit status: 0 when there is a verdict, 1 for what has to be changed, 75 when it was stopped by SIGTERM or a training was killed,
    130 after Ctrl-C.
    """
    with _resumable():
        form, spec = _checked(file)
        spec = replace(spec, training=_here(spec.training))
        from flows.comparison import run_comparison

        store = Root(root_of(form.root))
        terminal.say(f"Everything is kept under {store.url}", terminal.err)
        judged = run_comparison(store, spec, _hands(store))
        _show_ended("verdict", judged.made, judged.verdict, as_json)


def launch(file: FileArgument, as_json: JsonOption = False) -> None:
    """Run an experiment on the Prefect server that PREFECT_API_URL names, or that of `fabrating up`; says where it can be watched."""
    form, _ = _checked(file)
    from infra.local.launch import launch_comparison

    terminal.show(launch_comparison(form.model_dump(mode="json")), as_json)


def ladder(
    file: FileArgument,
    to: Annotated[int, typer.Option(min=2, max=64, help="Depth at which the difference is predicted.")] = 20,
    depths: Annotated[
        str, typer.Option(metavar="D,D,...", help="Depths that are trained and compared, three or more.")
    ] = "4,6,8,10,12",
    replicates: Annotated[
        int | None, typer.Option(min=2, help="Runs of each arm at each depth, instead of the file's.")
    ] = None,
    most: Annotated[float, typer.Option(help="Part of a direct comparison at the target that it may cost.")] = 0.2,
    as_json: JsonOption = False,
) -> None:
    """Compare an experiment's arms at several small depths, and predict their difference at a large one.

    Each depth is a comparison of the file's arms on equally many tokens a parameter, and the target is not trained. Says what it costs
    before anything is spent. Run it again after an interruption, and it resumes; exit status as of compare.
    """
    with _resumable():
        from flows.rungs import run_ladder
        from tasks.verdict.form import ComparisonForm
        from tasks.verdict.rungs import LadderForm

        given = read(file, ComparisonForm).model_dump(exclude_unset=True)
        if replicates:
            given = {name: value for name, value in given.items() if name not in ("seeds", "stop")} | {
                "replicates": replicates
            }
        form = LadderForm.model_validate(given | {"to": to, "depths": _depths(depths), "most": most})
        form = form.model_copy(update={"train": _here(form.train)})
        store = Root(root_of(form.root))
        terminal.say(f"Everything is kept under {store.url}", terminal.err)
        climbed = run_ladder(store, form.ladder(), _hands(store))
        _show_ended("ladder", climbed.made, climbed.ladder, as_json)


COMMANDS = (init, compare, launch, ladder)


def _show_ended(kind: str, made: "Artifact", ended: "Verdict | Ladder", as_json: bool) -> None:
    report = (made.path / REPORT).as_uri()
    if as_json:
        terminal.show({"artifact": made.name, "report": report, **ended.model_dump(mode="json")}, True)
        return
    for sentence in ended.sentences:
        terminal.out.print(sentence, highlight=False, markup=False)
    terminal.show({kind: made.name, "report": report}, False)


def _depths(given: str) -> list[int]:
    try:
        return [int(each) for each in given.split(",")]
    except ValueError:
        raise InputError(f"The depths are {given!r}: write whole numbers with commas, such as 4,6,8,10,12.") from None


def _checked(file: Path) -> "tuple[ComparisonForm, ComparisonSpec]":
    from tasks.verdict.form import ComparisonForm

    form = read(file, ComparisonForm)
    spec = form.spec()
    spec.require_matched()
    return form, spec


def _here(training: "Training") -> "Training":
    """On the CPU if that is what this machine takes for `auto`: then costs are those of a CPU.

    Raises InputError when the built-in trainer cannot compute so here: better said before the arms are prepared.
    """
    if training.engine != "builtin" or (training.device != "cpu" and has_gpu()):
        return training
    if training.precision != "fp32":
        raise InputError(
            f"train.precision={training.precision} needs a GPU, and this machine would train on its CPU: set precision: fp32 under train."
        )
    alone = training.device == "auto" and not visible_gpus()
    return training.model_copy(update={"device": "cpu"}) if alone else training


def _hands(root: Root) -> "Hands":
    """The hands of this process, which show what they do: bars and a table on a terminal, lines elsewhere."""
    from flows.comparison import Hands
    from flows.sequence import Steps
    from tasks.corpus.workers import Workers, local_workers
    from tasks.reports.artifacts import dollars, hours
    from tasks.reports.live import followed

    class Barred(Steps):
        def run(self, title: str, work: Callable[["Progress"], T]) -> T:
            with terminal.bars() as progress:
                return work(progress)

        def spread(self, title: str, work: Callable[["Progress", Workers], T]) -> T:
            with terminal.bars() as progress:
                return work(progress, local_workers())

    class Shown(Hands):
        def say(self, message: str) -> None:
            terminal.say(message, terminal.err)

        def show_cost(self, plan: "ComparisonPlan", costs: Sequence["CostEstimate"], notes: Sequence[str]) -> None:
            all_runs = costs[-1]
            price = f"{hours(all_runs.gpu_hours)}, {dollars(all_runs.dollars)} (speed: {all_runs.source})"
            for line in (
                f"{all_runs.runs} runs of {all_runs.tokens:,} tokens in {all_runs.steps:,} steps: {price}",
                *notes,
            ):
                terminal.say(line, terminal.err)

        def progress(self, run: "PlannedRun") -> "Progress":
            return terminal.evaluations(run.id)

        @contextlib.contextmanager
        def following(self, plan: "ComparisonPlan", standing: Callable[[], "Standing"]) -> Iterator[None]:
            with terminal.updating() as show, followed(standing, show, log):
                yield

    return Shown(root, Barred())


@contextlib.contextmanager
def _resumable() -> Iterator[None]:
    """SIGTERM, as of a scheduler, ends the work like Ctrl-C: a training saves a checkpoint first."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise InterruptedRun("Stopped by SIGTERM: run the same command again to resume.")

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
