"""The `fabrating` command: every room from a shell, without a server, and the local stack.

Each subcommand is thin over the functions that the flows call. `--json` prints what was written; bad input is one sentence
on stderr and exit status 1.
"""

import typer

from infra.cli import compare, experiment, results, stack
from tasks.store.settings import load_settings

app = typer.Typer(
    name="fabrating",
    help="Data-quality experiments on small language models: rated documents in, matched arms trained, a verdict out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for command in (*stack.COMMANDS, *compare.COMMANDS, *experiment.COMMANDS, *results.COMMANDS):
    app.command()(command)


@app.callback()
def settings() -> None:
    load_settings()


def main() -> None:
    """The console script."""
    app()
