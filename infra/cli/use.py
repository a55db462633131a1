"""The part of the `fabrating` command that uses what was trained: write, export."""

from pathlib import Path
from typing import Annotated

import typer

from infra.cli import terminal
from infra.cli.options import JsonOption, RootOption, reading
from tasks.errors import InputError
from tasks.escaping import visible
from tasks.records.layout import RUNS
from tasks.store.root import DEFAULT_ROOT

RunArgument = Annotated[str, typer.Argument(help="A finished run: its name, or a part that no other has.")]


def write(
    run: RunArgument,
    prompt: Annotated[str, typer.Argument(help='The beginning of a text, such as "The water cycle".')],
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write, at most.")] = 128,
    temperature: Annotated[
        float, typer.Option(help="0 takes the likeliest token each time; above 1 is wilder than the training text.")
    ] = 0.8,
    top_k: Annotated[int | None, typer.Option(help="Draw from so many of the likeliest tokens alone.")] = None,
    top_p: Annotated[
        float, typer.Option(help="Draw from the fewest likeliest tokens that have this probability together.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same text.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Let a trained model continue a text. It stops where the model ends its document."""
    import fabrating
    from tasks.engines.builtin.writing import Sampling
    from tasks.records.inventory import find

    sampling = Sampling(temperature, top_k, top_p)
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"The device is {device!r}: give auto, cpu or cuda.")
    run = find(reading(root), run, [RUNS]).id
    pieces = fabrating.open(root).load(run, device).write(prompt, tokens, sampling, seed)  # type: ignore[arg-type]
    if as_json:
        terminal.show({"run": run, "prompt": prompt, "text": "".join(pieces)}, True)
        return
    print(visible(prompt), end="", flush=True)
    for piece in pieces:
        print(visible(piece), end="", flush=True)
    print()


def export(
    run: RunArgument,
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR", help="A new or empty folder; for nanochat its base directory, NANOCHAT_BASE_DIR."
        ),
    ],
    to: Annotated[
        str, typer.Option(help="hf: for transformers and lm-eval; nanochat; or safetensors, plain weights.")
    ] = "hf",
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Write a trained model with its tokenizer and a model card for another program."""
    from tasks.engines.export.folder import CARD
    from tasks.engines.export.folder import export as write_export
    from tasks.records.inventory import find

    if to not in ("hf", "nanochat", "safetensors"):
        raise InputError(f"There is no export to {to!r}: give --to hf, nanochat or safetensors.")
    store = reading(root)
    written = write_export(store, find(store, run, [RUNS]).id, to, folder)  # type: ignore[arg-type]
    card = {} if to == "nanochat" else {"card": str(written / CARD)}
    terminal.show({"export": str(written), **card}, as_json)


COMMANDS = (write, export)
