"""The part of the `fabrating` command that looks back and ahead: report, judge, estimate."""

from dataclasses import asdict
from typing import Annotated

import typer

from infra.cli import terminal
from tasks.errors import InputError
from tasks.records.layout import REPORT
from tasks.spec import Training
from tasks.store.root import DEFAULT_ROOT, Root

RootOption = Annotated[
    str, typer.Option(help="Where artifacts lie: a folder, file:///folder or az://container/prefix.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the command line."""
    for command in (report, judge, estimate):
        app.command()(command)


def report(
    name: Annotated[str, typer.Argument(help="A run, such as top16-d20-s1-0a1b2c3d4e, or a verdict.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write the report of a run or a verdict: one HTML page that needs no network. Prints where it lies."""
    with terminal.plain_errors():
        from tasks.reports.report import write_report

        path = write_report(Root(root), name)
        terminal.show({"report": path.as_uri()}, as_json)


def judge(
    arms: Annotated[list[str], typer.Argument(metavar="ARM=RUN,RUN...", help="Two or more arms with their runs.")],
    name: Annotated[str, typer.Option(help="Readable part of the verdict's name.")] = "verdict",
    allow: Annotated[list[str] | None, typer.Option(help="A difference that is meant, such as arm.order.")] = None,
    target: Annotated[
        str, typer.Option(help="Which documents decide: all, 'lower half' or 'upper half' by score.")
    ] = "all",
    pairing: Annotated[
        str, typer.Option(help="Pair runs by seed: auto (3 shared seeds or more), seed or none. Choose before looking.")
    ] = "auto",
    outside: Annotated[
        list[str] | None, typer.Option(help="Texts that every run was scored on: NAME of runs/RUN/outside/NAME.")
    ] = None,
    core: Annotated[bool, typer.Option("--core", help="Compare CORE too: every run has been evaluated on it.")] = False,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Judge finished runs: which arm is better, by how much, how sure. Writes the verdict and its report."""
    with terminal.plain_errors():
        from tasks.reports.report import write_verdict
        from tasks.verdict.judge import judge as decide

        store = Root(root)
        verdict = decide(
            store,
            name,
            _arms(arms),
            allow=allow or (),
            outside=outside or (),
            core=core,
            target=target,
            pairing=pairing,
        )
        made = write_verdict(store, verdict)
        if as_json:
            terminal.show({"artifact": made.name, **verdict.model_dump(mode="json")}, True)
            return
        sentences = {f"{pair.a} - {pair.b}": pair.sentence for pair in verdict.comparisons}
        terminal.show({**sentences, "verdict": made.name, "report": (made.path / REPORT).as_uri()}, False)


def estimate(
    tokens: Annotated[int, typer.Argument(help="Trained tokens of one run.")],
    depth: Annotated[int, typer.Option(help="Layers of the model.")] = 20,
    precision: Annotated[str, typer.Option(help="bf16, fp8 or fp32.")] = "bf16",
    engine: Annotated[str, typer.Option(help="builtin or nanochat.")] = "builtin",
    gpus: Annotated[int, typer.Option(help="GPUs of the host.")] = 1,
    device: Annotated[str | None, typer.Option(help="Name of the GPU as its driver says it, or cpu.")] = None,
    price: Annotated[float, typer.Option(help="Dollars for one GPU and hour.")] = 3.0,
    arms: Annotated[int, typer.Option(min=1, help="Arms of the comparison.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 1,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Say what training would cost (hours, dollars, disk), by measured speed, and what so many seeds can show."""
    with terminal.plain_errors():
        from tasks.records.cost import estimate as calculate
        from tasks.records.ledger import entries, spread_between_seeds
        from tasks.reports import artifacts
        from tasks.verdict.planning import what_seeds_show

        training = Training(
            depth=depth, precision=precision, engine=engine, gpus=gpus, dollars_per_gpu_hour=price, tokens=tokens
        )
        ledger = entries(Root(root))
        cost = calculate(training, tokens, runs=arms * seeds, ledger=ledger, device=device)
        shows = what_seeds_show(spread_between_seeds(ledger, training), arms, seeds) if arms > 1 else None
        if as_json:
            terminal.show(asdict(cost) | ({"seeds": shows} if shows else {}), True)
            return
        lines = {
            "runs": cost.runs,
            "parameters": artifacts.short(cost.parameters),
            "steps": cost.steps,
            "tokens per second": artifacts.count(cost.tokens_per_second),
            "hours a run": artifacts.hours(cost.hours),
            "GPU hours in all": artifacts.hours(cost.gpu_hours),
            "cost in all": artifacts.dollars(cost.dollars),
            "disk": artifacts.byte_size(cost.disk_bytes),
            "speed from": cost.source,
        }
        terminal.show(lines | ({"seeds": shows} if shows else {}), False)


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
