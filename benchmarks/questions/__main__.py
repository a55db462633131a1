"""python -m benchmarks.questions [FILE]: make the questions that FabRating ships again, by default where they lie."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.questions.make import bundle
from tasks.tokens.asked import BUNDLE_FILE


def main(file: Annotated[Path, typer.Argument(help="Where to write them.")] = BUNDLE_FILE) -> None:
    """Write the questions, and say how many there are."""
    text = bundle()
    file.write_text(text)
    print(f"{text.count(chr(10))} questions, {len(text.encode()):,} bytes: {file}")


if __name__ == "__main__":
    typer.run(main)
