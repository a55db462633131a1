"""The part of the `fabrating` command for the local stack: up, down, demo, deploy, maintain, doctor."""

import os
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from infra.cli import terminal
from infra.cli.options import JsonOption, RootOption
from infra.local import deploy as deployments
from infra.local import lifecycle, stack
from tasks.errors import InputError
from tasks.store.root import DEFAULT_ROOT

NO_SERVER = "PREFECT_API_URL is not set: set it to the server's URL, such as http://127.0.0.1:4200/api."
HomeOption = Annotated[Path | None, typer.Option(help="The stack's folder; default: .fabrating, or FABRATING_HOME.")]
PortOption = Annotated[int, typer.Option(help="Port of the Prefect server; the next free one if it is taken.")]


def up(
    home: HomeOption = None,
    port: PortOption = lifecycle.SERVER_PORT,
    gpu: Annotated[
        bool, typer.Option("--gpu/--no-gpu", help="Serve the gpu pool from this machine, or leave it to other hosts.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Start the local stack (Prefect server, object store with a sample, workers) and leave it running."""
    from infra.local.publish import publish_soon

    running = lifecycle.up(_home(home), _say(as_json), port=port, gpu=gpu)
    publish_soon(running, _say(as_json))
    summary = {
        "ui": running.ui,
        "password in": str(running.password_file),
        "reports": running.reports,
        "results in": running.root,
        "api": running.api,
        "sample": running.sample,
        "processes": running.pids if as_json else {name: str(pid) for name, pid in running.pids.items()},
    }
    terminal.show({**summary, "environment": str(running.home / "env")}, as_json)


def down(home: HomeOption = None, as_json: JsonOption = False) -> None:
    """Stop the local stack, runs in progress included."""
    terminal.show({"processes stopped": lifecycle.down(_home(home), _say(as_json))}, as_json)


def demo(home: HomeOption = None, port: PortOption = lifecycle.SERVER_PORT, as_json: JsonOption = False) -> None:
    """Start the stack, run `compare/demo` to its verdict, and say where to look."""
    from infra.local.demo import run_demo

    terminal.show(run_demo(_home(home), _say(as_json), port), as_json)


def deploy() -> None:
    """Create the work pools and deployments on the server that PREFECT_API_URL names."""
    if not os.environ.get("PREFECT_API_URL"):
        raise InputError(NO_SERVER)
    environment = {**os.environ, **stack.server_environment(stack.load(stack.default_home()))}
    deployments.create_pools(environment)
    deployments.deploy(environment)


def maintain(
    every: Annotated[float, typer.Option(min=1, max=60, help="Seconds between two looks.")] = 30,
    attempts: Annotated[int, typer.Option(min=0, help="How often a run is restarted.")] = 3,
    delay: Annotated[float, typer.Option(min=0, help="Seconds before the first restart; doubles each time.")] = 60,
) -> None:
    """Restart failed and crashed runs of the server that PREFECT_API_URL names, until stopped; each stack does so by itself."""
    from infra.local import maintenance

    environment = stack.server_environment(stack.load(stack.default_home()))
    if not environment:
        raise InputError(NO_SERVER)
    home = stack.default_home()
    maintenance.maintain(
        {**os.environ, **environment}, every, attempts, delay, lambda: lifecycle.keep_workers(home, print)
    )


def doctor(
    home: HomeOption = None,
    root: RootOption = DEFAULT_ROOT,
    data: Annotated[
        str | None, typer.Option(help="Raw data to list, such as az://container/prefix; default: the stack's sample.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check this machine, credentials, stores (the root is listed and written to) and Prefect, with remedies; exit status 1 when something is wrong."""
    from infra.doctor import examine

    findings = examine(_home(home), root, data)
    terminal.show_rows([finding.row() for finding in findings], as_json)
    if any(finding.state == "bad" for finding in findings):
        raise SystemExit(1)


COMMANDS = (up, down, demo, deploy, maintain, doctor)


def _home(home: Path | None) -> Path:
    return (home or stack.default_home()).absolute()


def _say(as_json: bool) -> stack.Say:
    return partial(terminal.say, on=terminal.err) if as_json else terminal.say
