"""The `fabrating` command: every room from a shell, without a server, and the local stack.

Each subcommand is thin over the functions that the flows call. `--json` prints what was written; bad input is one sentence
on stderr and exit status 1.
"""

import codecs
import locale
import os
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from infra.cli import compare, experiment, ledger, results, stack, terminal, use
from infra.cli.options import Command, wrong_option
from tasks.records.code import Code
from tasks.store.settings import load_settings

app = typer.Typer(
    name="fabrating",
    help="Data-quality experiments on small language models: rated documents in, matched arms trained, a verdict out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS: tuple[Callable[..., None], ...] = (
    *stack.COMMANDS,
    *compare.COMMANDS,
    *experiment.COMMANDS,
    *results.COMMANDS,
    *ledger.COMMANDS,
    *use.COMMANDS,
)
UTF8 = "PYTHONUTF8"
FUNCTIONS = {command.__name__.removesuffix("_report").replace("_", "-"): command for command in COMMANDS}
for name, command in FUNCTIONS.items():
    app.command(name, cls=Command)(terminal.plain_errors()(command))


def _version(asked: bool) -> None:
    if asked:
        code = Code.of_this_process()
        print(f"fabrating {code.code}" + (f", commit {code.commit}" if code.commit else ""))
        raise typer.Exit()


@app.callback()
def settings(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    load_settings()


def main() -> None:
    """The console script. An option that a command lacks is answered with the nearest one."""
    _in_utf8()
    terminal.name_the_output()
    try:
        with terminal.plain_errors():
            status = app(standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()  # at exit its errors would have no sentence
        sys.exit(status)
    except typer.Abort:
        sys.exit(1)
    except Exception as error:
        # Typer has its own Click, whose exceptions it does not export.
        if not hasattr(error, "exit_code") or not hasattr(error, "show"):
            raise
        if (name := getattr(error, "option_name", None)) and type(error).__name__ == "NoSuchOption":
            command = error.ctx.command  # type: ignore[attr-defined]
            terminal.fail(wrong_option(name, command, FUNCTIONS[command.name]))
        error.show()
        sys.exit(error.exit_code)


def _in_utf8() -> None:
    """Start again in Python's UTF-8 mode where the locale has another encoding: reports and experiments hold characters that it may lack."""
    if sys.stdout is not None:  # PYTHONIOENCODING may ask for ASCII
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if codecs.lookup(locale.getpreferredencoding(False)).name == "utf-8" or os.environ.get(UTF8) == "1":
        return
    os.environ[UTF8] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
