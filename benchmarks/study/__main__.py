"""python -m benchmarks.study: one complete study, from Debian's documentation to the verdicts, tables and pictures of its README.

What is complete is found again, so the same command goes on after an interruption.
"""

from pathlib import Path
from typing import Annotated

import typer

FOLDER = Path(".fabrating/study")
"""Where the experiments' files look for the corpus, from the project's folder, and keep their root."""
Small = Annotated[
    bool, typer.Option("--small", help="An eighth of the text and two-layer models, on a CPU: does the road work?")
]
app = typer.Typer(add_completion=False, help=__doc__)


@app.callback(invoke_without_command=True)
def everything(context: typer.Context) -> None:
    """Text, ratings, experiments, results and pictures."""
    if context.invoked_subcommand is None:
        corpus()
        run()
        show()


@app.command()
def corpus() -> None:
    """Fetch the packages (about 300 MB), and make the rated corpus and the texts from elsewhere."""
    from benchmarks.study.corpus import build
    from tasks.cores import cores

    print(f"The corpus is in {build(FOLDER, cores())}", flush=True)


@app.command(name="run")
def run(
    names: Annotated[list[str] | None, typer.Argument(help="Experiments; all of them.")] = None, small: Small = False
) -> None:
    """Train and judge what is missing. Needs no server; the corpus has to be there."""
    from benchmarks.study.run import run

    run(names or (), small)


@app.command()
def show() -> None:
    """Keep verdicts, reports, ledger and scores in results/, write the README's findings, and draw the pictures."""
    from benchmarks.study import figures, kept, page

    kept.keep()
    found = kept.published()
    page.write(found)
    for file in figures.draw(found):
        print(file)
    for name, verdict in found.items():
        for sentence in verdict.sentences:
            print(f"{name}: {sentence}")


if __name__ == "__main__":
    app()
