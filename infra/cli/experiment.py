"""The part of the `fabrating` command that runs an experiment step by step: estimate, design, prepare, train, score."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import TypeAdapter

from infra.cli import options, terminal
from infra.cli.options import JsonOption, RootOption, SetOption, WorkersOption, parse, pool_of, reading, reading_if_made
from tasks.cores import limited
from tasks.engines import entry
from tasks.errors import InputError
from tasks.records.inventory import find
from tasks.records.layout import RUNS, ArmFolder
from tasks.records.recall import require_arm
from tasks.spec import BUNDLE, Arm, Label, Pool, Questions, Texts, Training
from tasks.store.root import DEFAULT_ROOT, Root

if TYPE_CHECKING:
    from tasks.records.ledger import LedgerEntry


def estimate(
    tokens: Annotated[
        int | None,
        typer.Argument(
            parser=options.tokens,
            metavar="TOKENS",
            help="Trained tokens of one run, such as 2B. Of an experiment's file, compare says the cost before it trains.",
        ),
    ] = None,
    depth: Annotated[int, typer.Option(help="Layers of the model.")] = 20,
    precision: Annotated[str, typer.Option(help="bf16, fp8 or fp32.")] = "bf16",
    engine: Annotated[str, typer.Option(help="builtin or nanochat.")] = "builtin",
    gpus: Annotated[int, typer.Option(help="GPUs of the host.")] = 1,
    device: Annotated[str | None, typer.Option(help="Name of the GPU as its driver says it, or cpu.")] = None,
    price: Annotated[float, typer.Option(help="Dollars for one GPU and hour.")] = 3.0,
    ratio: Annotated[
        float | None,
        typer.Option("--tokens-per-parameter", help="Trained tokens for each scaling parameter, instead of TOKENS."),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Depths 12 to 32 on several GPUs, at 10.5 tokens a parameter by default.")
    ] = False,
    arms: Annotated[int, typer.Option(min=1, help="Arms of the comparison.")] = 1,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of each arm.")] = 1,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Say what training would cost (hours, dollars, disk), by measured speed, and what so many seeds can show."""
    from tasks.records.cost import estimate_cost
    from tasks.records.ledger import entries
    from tasks.records.scaling import budget_tokens
    from tasks.reports import artifacts
    from tasks.verdict.planning import spread_between_seeds, what_seeds_show

    training = Training(
        depth=depth,
        precision=precision,
        engine=engine,
        gpus=gpus,
        dollars_per_gpu_hour=price,
        tokens=tokens,
        tokens_per_parameter=ratio,
    )
    store = reading_if_made(root)
    ledger = entries(store) if store else []
    if table:
        _show_sizes(training, ledger, as_json)
        return
    tokens = budget_tokens(training, Pool().vocab_size)
    if tokens is None:
        raise InputError("There is no budget: give TOKENS, --tokens-per-parameter, or --table for all depths.")
    training = training.on(tokens)
    cost = estimate_cost(training, tokens, runs=arms * seeds, ledger=ledger, device=device)
    shows = what_seeds_show(spread_between_seeds(ledger, training), arms, seeds) if arms > 1 else None
    if as_json:
        terminal.show(asdict(cost) | ({"seeds": shows} if shows else {}), True)
        return
    lines = {
        "runs": cost.runs,
        "parameters": artifacts.short(cost.parameters),
        "tokens": artifacts.short(cost.tokens),
        "steps": cost.steps
        or "0: the tokens do not fill one batch, which a training refuses. Give more, or a smaller --depth",
        "tokens per second": artifacts.count(cost.tokens_per_second),
        "time a run": artifacts.hours(cost.hours),
        "GPU time in all": artifacts.hours(cost.gpu_hours),
        "cost in all": artifacts.dollars(cost.dollars),
        "disk": artifacts.byte_size(cost.disk_bytes),
        "speed from": cost.source,
    }
    terminal.show(lines | ({"seeds": shows} if shows else {}), False)


def design(
    effect: Annotated[float, typer.Option(help="The difference that is to be shown, in bits per byte.")],
    dollars: Annotated[float, typer.Option(help="What all runs together may cost.")],
    arms: Annotated[int, typer.Option(min=2, help="Arms of the comparison.")] = 2,
    device: Annotated[str | None, typer.Option(help="Name of the GPU as its driver says it, or cpu.")] = None,
    price: Annotated[float, typer.Option(help="Dollars for one GPU and hour.")] = 3.0,
    root: RootOption = DEFAULT_ROOT,
    as_json: JsonOption = False,
) -> None:
    """Propose depth, tokens and replicates that show an effect for the money, by how far replicates are known to scatter."""
    from tasks.records.ledger import entries
    from tasks.verdict.design import propose, say

    store = reading_if_made(root)
    known = entries(store) if store else []
    designs = propose(effect, dollars, known, arms=arms, dollars_per_gpu_hour=price, device=device)
    sentence = say(designs[0], effect, dollars, arms)
    if as_json:
        terminal.show({"proposal": sentence, "designs": [asdict(each) for each in designs]}, True)
        return
    shown = ("depth", "recipe", "tokens", "replicates", "shows", "reaches", "needed", "deviation", "freedom")
    terminal.show_rows(
        [{name: getattr(each, name) for name in shown} | {"dollars": each.cost.dollars} for each in designs], False
    )
    terminal.show({"proposal": sentence}, False)


def prepare(
    source: Annotated[
        str | None,
        typer.Argument(
            help="The raw data: az://container/prefix, a folder or file:///folder. Several: --set sources=..."
        ),
    ] = None,
    root: RootOption = DEFAULT_ROOT,
    select: Annotated[str, typer.Option(help="top, bottom, random, temperature, all or subset.")] = "top",
    share: Annotated[float, typer.Option(help="Part of the documents to take, above 0 and at most 1.")] = 0.165,
    order: Annotated[str, typer.Option(help="best-first, shuffled or worst-first.")] = "best-first",
    seed: Annotated[int, typer.Option(help="Seed of a random selection and of a shuffled order.")] = 42,
    name: Annotated[str | None, typer.Option(help="Readable part of the arm's name.")] = None,
    sequence_length: Annotated[int, typer.Option(help="Tokens of a packed row.")] = 2_048,
    packing: Annotated[
        str, typer.Option(help="split: documents go on in the next row; crop: nanochat's best fit.")
    ] = "split",
    settings: SetOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Turn rated documents into an arm: index, holdout, selection, text shards, tokenizer, packed rows.

    With --set any other field of the pool or of the arm, such as vocab_size=4096, or of several sources with names:

    --select subset --set subset=top16 --set format=prebuilt --set sources='{"top16": "az://...", "rand16": "az://..."}'
    """
    with limited(workers), terminal.telling():
        extra = parse(
            settings, ("source", "select", "share", "order", "seed", "name", "sequence_length", "packing"), Pool, Arm
        )
        of_pool = Pool.model_fields.keys() - Arm.model_fields.keys()  # a score is the arm's
        pool_fields = {key: extra.pop(key) for key in list(extra) if key in of_pool}
        pool = pool_of(source, pool_fields)
        label = name or (str(extra.get("subset")) if select == "subset" else f"{select}{round(share * 100)}")
        arm = Arm(name=label, select=select, share=share, order=order, seed=seed, **extra)
        training = Training(sequence_length=sequence_length, packing=packing)
        from flows.sequence import Steps, prepare_arm

        with terminal.bars() as progress:
            made = prepare_arm(Root(root), pool, arm, training, Steps(progress))
        if as_json:
            manifests = {part: json.loads(getattr(made, part).manifest.to_json()) for part in ("text", "packed")}
            terminal.show({"arm": made.arm_id, "pool": made.pool_id, **manifests}, True)
            return
        reused = made.text.reused and made.packed.reused
        terminal.show({"arm": made.arm_id, "reused": reused, **made.facts}, False)


def train(
    arm: Annotated[str, typer.Argument(help="A prepared arm, such as top16-0a1b2c3d4e.")],
    root: RootOption = DEFAULT_ROOT,
    depth: Annotated[int, typer.Option(help="Layers of the model.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the initial weights.")] = 1,
    precision: Annotated[str | None, typer.Option(help="bf16, fp8 or fp32; default: bf16 on a GPU, else fp32.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Default: what the arm is packed for.")] = None,
    name: Annotated[
        str | None, typer.Option(help="What you call the run, to find it again; it changes nothing else.")
    ] = None,
    settings: SetOption = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train on a prepared arm and score the model. Run it again after an interruption, and it resumes.

    With --set any other field of the training, such as batch_tokens=8192.
    """
    with limited(workers):
        extra = parse(settings, ("depth", "seed", "precision", "sequence_length"), Training)
        Training(depth=depth, **extra)  # checks the bounds before torch is loaded
        from flows.sequence import train_arm

        name = TypeAdapter(Label).validate_python(name) if name is not None else None
        store = reading(root)
        length, packing = _packed_as(store, arm, sequence_length, extra.pop("packing", None))
        training = Training(
            depth=depth,
            precision=precision or ("bf16" if has_gpu() else "fp32"),
            sequence_length=length,
            packing=packing,
            **extra,
        )
        with terminal.telling(), terminal.bars() as progress:
            result = train_arm(store, arm, training, seed, progress, name=name)
        _show_artifact(result, as_json)


def score(
    run: Annotated[str, typer.Argument(help="A run: its name, or a part that no other has.")],
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
    questions: Annotated[
        str | None,
        typer.Option(
            help="Ask these questions instead: a file, folder or URL of .parquet or .jsonl, or bundle for those that FabRating ships."
        ),
    ] = None,
    questions_name: Annotated[
        str | None, typer.Option(help="Readable part of their name; default: bundle, or questions.")
    ] = None,
    core: Annotated[bool, typer.Option("--core", help="Evaluate on nanochat's CORE tasks instead.")] = False,
    max_per_task: Annotated[int | None, typer.Option(min=1, help="Questions of each task; default: all.")] = None,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Score a run: bits per byte of its newest checkpoint on the pool's holdout, per document and per score decile.

    With --texts, --questions or --core its final weights on texts from elsewhere, on right answers, or on CORE; `fabrating judge` compares
    those too.
    """
    with limited(workers), terminal.telling():
        store = reading(root)
        wanted = {"--texts": texts, "--questions": questions, "--core": core}
        if len(given := [name for name, value in wanted.items() if value]) > 1:
            raise InputError(f"{' and '.join(given)} were given together: score one after the other.")
        run = find(store, run, [RUNS]).id
        if core:
            _show_artifact(entry.evaluate_core(store, run, max_per_task), as_json)
            return
        if questions:
            from tasks.records.job import find_job
            from tasks.tokens.questions import encode_questions

            asked = Questions(name=questions_name or (BUNDLE if questions == BUNDLE else "questions"), url=questions)
            with terminal.bars() as progress:
                encoded = encode_questions(store, find_job(store, run).pool_id, asked, progress)
            _show_artifact(entry.score_questions(store, run, encoded.path.name), as_json)
            return
        if texts is None:
            _show_artifact(entry.score(store, run), as_json)
            return
        from tasks.records.job import find_job
        from tasks.tokens.outside import encode_outside

        wanted_texts = Texts(name=texts_name, url=texts, column=column, documents=documents)
        with terminal.bars() as progress:
            encoded = encode_outside(store, find_job(store, run).pool_id, wanted_texts, progress)
        _show_artifact(entry.score_outside(store, run, encoded.path.name), as_json)


COMMANDS = (estimate, design, prepare, train, score)


def _show_sizes(training: Training, ledger: Sequence["LedgerEntry"], as_json: bool) -> None:
    """The table of depths, and why another one has other counts. Raises InputError when a number of tokens was given too."""
    from tasks.records.sizes import GPUS, OLD_TABLE, RULE, other_table, sizes
    from tasks.reports import artifacts

    if training.tokens is not None:
        raise InputError("--table has a budget for each depth: give --tokens-per-parameter instead of TOKENS.")
    ratio, vocab_size = training.tokens_per_parameter or RULE, Pool().vocab_size
    found = sizes(training, ratio, vocab_size, ledger)
    if as_json:
        terminal.show([asdict(size) for size in found], True)
        return
    titles = {name: f"{name}, scaled" if any(size.costs[name].scaled for size in found) else name for name in GPUS}
    rows = [
        {
            "depth": f"d{size.depth}",
            "parameters": artifacts.short(size.parameters),
            "scaling": artifacts.short(size.scaling),
            f"tokens at {ratio:g}": artifacts.short(size.tokens),
            **{
                titles[name]: f"{artifacts.hours(cost.hours)}, {artifacts.dollars(cost.dollars)}"
                for name, cost in size.costs.items()
            },
        }
        for size in found
    ]
    terminal.show_rows(rows, False)
    terminal.out.print(
        f"\n{training.engine}, {training.precision}, {training.gpus} GPU(s) at ${training.dollars_per_gpu_hour:g} an hour each. Speeds were "
        "measured on that GPU at the nearest size; scaled: on an H100, by peak FLOP/s. Scaling: block matrices and lm_head.\n"
    )
    terminal.out.print(other_table(OLD_TABLE, vocab_size))


def _show_artifact(artifact: Any, as_json: bool) -> None:
    if as_json:
        terminal.show(json.loads(artifact.manifest.to_json()), True)
        return
    from tasks.reports.artifacts import decile_rows

    facts = dict(artifact.facts)
    rows = decile_rows(facts.pop("bpb_by_decile", None) or ())
    terminal.show({"artifact": artifact.name, **facts} | ({"bits per byte by score": rows} if rows else {}), False)


def _packed_as(root: Root, arm_id: str, sequence_length: int | None, packing: str | None) -> tuple[int, str]:
    """Sequence length and packing to train with: as given, else as the arm is packed. Raises InputError when that is not one way."""
    require_arm(root, arm_id)
    there = ArmFolder(arm_id).packings(root)
    fitting = [way for way in there if sequence_length in (None, way[0]) and packing in (None, way[1])]
    if len(fitting) != 1:
        found = ", ".join(f"{length} tokens a row ({way})" for length, way in there) or "nothing"
        raise InputError(
            f"The arm {arm_id!r} is packed for {found}: say which with --sequence-length and --set packing=..., or prepare it so."
        )
    return fitting[0]


def has_gpu() -> bool:
    """Whether PyTorch finds a GPU here; no memory of it is taken."""
    import torch

    return torch.cuda.is_available()
