"""python -m benchmarks.verdict planted FOLDER | coverage: does the verdict find what was planted, and are its error bars true?"""

import typer

from benchmarks.verdict import coverage, planted

app = typer.Typer(add_completion=False, help=__doc__)
app.command("planted")(planted.main)
app.command("coverage")(coverage.main)

if __name__ == "__main__":
    app()
