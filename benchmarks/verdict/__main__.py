"""python -m benchmarks.verdict real FOLDER | questions FOLDER | coverage | sequential | ladder | savings | cost | noise: what a verdict finds, whether its error bars are true, what it costs, what seeds do."""

import sys


def main() -> None:
    if sys.argv[1:2] == ["noise"]:  # runs on GPU hosts that have PyTorch and NumPy alone
        from benchmarks.verdict import noise

        noise.main(sys.argv[2:])
        return
    import typer

    from benchmarks.verdict import cost, coverage, ladder, questions, real, savings, sequential

    app = typer.Typer(add_completion=False, help=__doc__)
    app.command("real")(real.main)
    app.command("questions")(questions.main)
    app.command("coverage")(coverage.main)
    app.command("sequential")(sequential.main)
    app.command("ladder")(ladder.main)
    app.command("savings")(savings.main)
    app.command("cost")(cost.main)
    app()


if __name__ == "__main__":
    main()
