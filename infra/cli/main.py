"""The `fabrating` command: every room from a shell, without a server, and the local stack.

Each subcommand is thin over the functions that the flows call. `--json` prints what was written; bad input is one sentence
on stderr and exit status 1.
"""

import json
from collections.abc import Collection
from typing import Annotated, Any

import typer

from infra.cli import look as tracking_cli
from infra.cli import stack as stack_cli
from infra.cli import terminal
from tasks.engines import entry
from tasks.errors import InputError
from tasks.records.layout import KINDS
from tasks.spec import Arm, Pool, Texts, Training
from tasks.store.root import DEFAULT_ROOT, Root

app = typer.Typer(
    name="fabrating",
    help="Data-quality experiments on small language models: rated documents in, matched arms trained, a verdict out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
stack_cli.register(app)
tracking_cli.register(app)

RootOption = Annotated[
    str, typer.Option(help="Where artifacts lie: a folder, file:///folder or az://container/prefix.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="FIELD=VALUE", help="Any other parameter; may be repeated.")
]


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="The raw data: az://container/prefix, a folder or file:///folder.")],
    root: RootOption = DEFAULT_ROOT,
    select: Annotated[str, typer.Option(help="top, bottom, random, temperature or all.")] = "top",
    share: Annotated[float, typer.Option(help="Part of the documents to take, above 0 and at most 1.")] = 0.165,
    order: Annotated[str, typer.Option(help="best-first, shuffled or worst-first.")] = "best-first",
    seed: Annotated[int, typer.Option(help="Seed of a random selection and of a shuffled order.")] = 42,
    name: Annotated[str | None, typer.Option(help="Readable part of the arm's name.")] = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a packed row.")] = 2_048,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn rated documents into an arm: index, holdout, selection, text shards, tokenizer, packed rows.

    With --set any other field of the pool or of the arm, such as vocab_size=4096.
    """
    with terminal.plain_errors():
        extra = parse(settings, options=("source", "select", "share", "order", "seed", "name", "sequence_length"))
        pool_fields = {key: extra.pop(key) for key in list(extra) if key in Pool.model_fields}
        pool = Pool(source=source, **pool_fields)
        label = name or f"{select}{round(share * 100)}"
        arm = Arm(name=label, select=select, share=share, order=order, seed=seed, **extra)
        Training(sequence_length=sequence_length)  # checks the bounds before anything is read
        from infra.cli import road

        with terminal.bars() as progress:
            made = road.prepare(Root(root), pool, arm, sequence_length, progress)
        if as_json:
            manifests = {part: json.loads(getattr(made, part).manifest.to_json()) for part in ("text", "packed")}
            terminal.show({"arm": made.arm_id, "pool": made.pool_id, **manifests}, True)
            return
        reused = made.text.reused and made.packed.reused
        facts = {"arm": made.arm_id, "reused": reused, **made.text.facts, **made.packed.facts}
        terminal.show(facts, False)


@app.command()
def train(
    arm: Annotated[str, typer.Argument(help="A prepared arm, such as top16-0a1b2c3d4e.")],
    root: RootOption = DEFAULT_ROOT,
    depth: Annotated[int, typer.Option(help="Layers of the model.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights.")] = 1,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8 or fp32; default: bf16 on a GPU, else fp32.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Default: what the arm is packed for.")] = None,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on a prepared arm and score the model. Run again after an interruption, it goes on.

    With --set any other field of the training, such as batch_tokens=8192.
    """
    with terminal.plain_errors():
        extra = parse(settings, options=("depth", "seed", "precision", "sequence_length"))
        Training(depth=depth, **extra)  # checks the bounds before torch is loaded
        from infra.cli import road

        store = Root(root)
        training = Training(
            depth=depth,
            precision=precision or ("bf16" if _has_gpu() else "fp32"),
            sequence_length=sequence_length or road.packed_as(store, arm)[0],
            **extra,
        )
        with terminal.bars() as progress:
            result = road.train(store, arm, training, seed, progress)
        _show_artifact(result, as_json)


@app.command()
def score(
    run: Annotated[str, typer.Argument(help="A run, such as top16-d20-s1-0a1b2c3d4e.")],
    root: RootOption = DEFAULT_ROOT,
    texts: Annotated[
        str | None,
        typer.Option(help="Score on these texts instead: a folder or URL of .parquet, .jsonl or .txt files."),
    ] = None,
    texts_name: Annotated[str, typer.Option(help="Readable part of their name.")] = "outside",
    column: Annotated[str, typer.Option(help="Their column, or field of JSON lines, that holds a document.")] = "text",
    documents: Annotated[
        int, typer.Option(help="Documents to take of them, the first by file name and place.")
    ] = 5_000,
    core: Annotated[bool, typer.Option("--core", help="Evaluate on nanochat's CORE tasks instead.")] = False,
    max_per_task: Annotated[int | None, typer.Option(min=1, help="Questions of each task; default: all.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run: bits per byte of its newest checkpoint on the pool's holdout, per document and per score decile.

    With --texts or --core its final weights on texts from elsewhere, or on questions; `fabrating judge` compares those too.
    """
    with terminal.plain_errors():
        store = Root(root)
        if texts and core:
            raise InputError("--texts and --core were given together: score one after the other.")
        if core:
            _show_artifact(entry.evaluate_core(store, run, max_per_task), as_json)
            return
        if texts is None:
            _show_artifact(entry.score(store, run), as_json)
            return
        from tasks.records.job import find_job
        from tasks.tokens.outside import encode_outside

        given = Texts(name=texts_name, url=texts, column=column, documents=documents)
        with terminal.bars() as progress:
            encoded = encode_outside(store, find_job(store, run).pool_id, given, progress)
        _show_artifact(entry.score_outside(store, run, encoded.path.name), as_json)


@app.command()
def inspect(
    what: Annotated[str, typer.Argument(help="Raw data (a URL or folder), or an artifact such as arms/NAME/text.")],
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Say what raw data holds (files, columns, rows, scores), or what an artifact's manifest says."""
    with terminal.plain_errors():
        if what.split("/")[0] in KINDS:
            manifest = Root(root).find(what.rstrip("/"))
            if manifest is None:
                raise InputError(f"There is no complete artifact {what} under {root}: check the name and --root.")
            terminal.show(json.loads(manifest.to_json()), as_json)
            return
        from tasks.corpus.pool.survey import survey

        terminal.show(survey(what), as_json)


@app.command()
def runs(root: RootOption = DEFAULT_ROOT, as_json: JsonOption = False) -> None:
    """List the runs of the ledger, newest first: arm, seed, step, bits per byte, speed, hours, cost, state."""
    with terminal.plain_errors():
        from tasks.records.ledger import entries, table

        terminal.show_rows(table(entries(Root(root))), as_json)


def parse(settings: list[str] | None, options: Collection[str]) -> dict[str, Any]:
    """FIELD=VALUE pairs; a value is JSON where it can be.

    Raises InputError for one without an equals sign, and for a field that the command has as one of its `options`.
    """
    parsed: dict[str, Any] = {}
    for setting in settings or ():
        field, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set {setting} has no value: write --set {setting}=VALUE.")
        if field in options:
            raise InputError(f"--set {setting} sets what has an option of its own: see {field!r} in --help.")
        try:
            parsed[field] = json.loads(value)
        except ValueError:
            parsed[field] = value
    return parsed


def _show_artifact(artifact: Any, as_json: bool) -> None:
    manifest = json.loads(artifact.manifest.to_json())
    terminal.show(manifest if as_json else {"artifact": artifact.name, **artifact.facts}, as_json)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
