"""What lies under a root, opened: ledger, scores, verdicts, arms, models. Nothing here writes, but for the local copy of a remote root."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.errors import InputError
from tasks.records import ledger
from tasks.records.layout import (
    ARMS,
    DOCUMENTS,
    ENTRY,
    LADDERS,
    POOLS,
    RUNS,
    SCORES,
    VERDICT,
    VERDICTS,
    ArmFolder,
    RunFolder,
    VerdictFolder,
)
from tasks.records.ledger import LedgerEntry
from tasks.records.scores import read_scores
from tasks.records.verdict import Verdict
from tasks.spec import Arm
from tasks.store.root import DEFAULT_ROOT, Root
from tasks.store.settings import load_settings

if TYPE_CHECKING:
    from tasks.engines.builtin.model import GPT
    from tasks.engines.builtin.writing import Sampling
    from tasks.tokens.tokenizer import Tokenizer

Kind = Literal["pools", "arms", "runs", "verdicts", "ladders"]
Device = Literal["auto", "cpu", "cuda"]


def open(root: str | Path = DEFAULT_ROOT, cache: Path | None = None) -> "Results":
    """The results under a root: a folder, file:///folder, az://, s3:// or gs:// with container and prefix.

    Without one it is what FABRATING_ROOT names, else `.fabrating/root`. Credentials come from the environment or `.env`, as for the
    command. `cache`: the local folder for copies of a remote root. Raises InputError for what is no root,
    as a folder that is not there.
    """
    load_settings()
    return Results(Root(root, cache, make=False))


class Results:
    """Everything under one root. Each method reads what is there now."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def __repr__(self) -> str:
        return f"fabrating.open({self.url!r})"

    @property
    def url(self) -> str:
        """Of the root."""
        return self._root.url

    def names(self, kind: Kind) -> list[str]:
        """The names of all pools, arms, runs, verdicts or ladders, sorted. Raises InputError for another kind."""
        if kind not in (POOLS, ARMS, RUNS, VERDICTS, LADDERS):
            raise InputError(f"There are no names of {kind!r}: ask for pools, arms, runs, verdicts or ladders.")
        found = self._root.names(kind) + (self._root.names(RUNS, ENTRY) if kind == RUNS else [])
        return sorted({name.split("/")[1] for name in found})

    def runs(self) -> list[LedgerEntry]:
        """The ledger, newest attempt first; live numbers for runs that are still going on."""
        return ledger.entries(self._root)

    def scores(self, runs: str | Sequence[str], texts: str | None = None) -> pa.Table:
        """The scores of finished runs, one row for each run and document, in the order of `runs`.

        Columns: run, arm, seed, those of scores.parquet (`docs/formats.md`), and bits_per_byte, null for an empty document. `texts`:
        the name of texts from elsewhere that the runs were scored on; else it is the pool's holdout. `.to_pandas()` makes a
        DataFrame of it. Raises InputError for a run that has no such scores.
        """
        names = [runs] if isinstance(runs, str) else list(runs)
        if not names:
            raise InputError("No runs are named: give one or more, such as those of runs().")
        return pa.concat_tables([self._scores(name, texts) for name in names])

    def _scores(self, run: str, texts: str | None) -> pa.Table:
        folder = RunFolder(run)
        name = folder.result if texts is None else folder.outside(texts)
        if (found := self._root.find(name)) is None:
            on, why = ("", "") if texts is None else (f" on {texts}", ", or was not scored on them")
            raise InputError(
                f"The run {run} has no scores{on} under {self._root.url}: it is not there, or has not finished{why}."
            )
        experiment = found.spec
        table = read_scores(self._root.file(name, SCORES)).replace_schema_metadata(None)
        size = pc.if_else(pc.equal(table["bytes"], 0), None, table["bytes"])
        table = table.append_column("bits_per_byte", pc.divide(table["nats"], pc.multiply(size, math.log(2))))
        about = {"run": run, "arm": experiment["arm"]["name"], "seed": experiment["seed"]}
        for place, (column, value) in enumerate(about.items()):
            table = table.add_column(place, column, pa.repeat(pa.scalar(value), len(table)))
        return table

    def verdict(self, name: str) -> Verdict:
        """A verdict by its whole name, or by the one that it was asked under: then the newest of those.

        Raises InputError when there is none, DamagedError when another version wrote it in another format.
        """
        known = VerdictFolder.all(self._root)
        found = [name] if name in known else [each for each in known if each.rpartition("-")[0] == name]
        if not found:
            raise InputError(f"There is no verdict {name!r} under {self.url}: there are {', '.join(known) or 'none'}.")
        read = [Verdict.read(self._root.file(VerdictFolder(each).name, VERDICT)) for each in found]
        return max(read, key=lambda verdict: verdict.created)

    def arm(self, name: str) -> "PreparedArm":
        """A prepared arm by its whole name, or by its readable part where that means one arm. Raises InputError otherwise."""
        known = ArmFolder.all(self._root)
        found = [name] if name in known else [each for each in known if each.rpartition("-")[0] == name]
        if len(found) != 1:
            problem = f"The arm {name!r} may be {' or '.join(found)}" if found else f"There is no arm {name!r}"
            raise InputError(f"{problem} under {self.url}: give one of {', '.join(known) or 'none'}.")
        manifest = self._root.manifest(ArmFolder(found[0]).text)
        return PreparedArm(
            found[0], manifest.inputs["pool"], Arm.model_validate(manifest.spec), manifest.facts, self._root
        )

    def load(self, run: str, device: Device = "auto") -> "Loaded":
        """The model of a finished run with its final weights, and its tokenizer. Of a remote root the weights alone are fetched.

        Raises InputError when the run is unknown, has not finished or has lost its last checkpoint, or when there is no such device.
        """
        from tasks.engines.builtin.distributed import join
        from tasks.engines.builtin.writing import load_model
        from tasks.engines.trained import open_trained
        from tasks.tokens.tokenizer import load_tokenizer

        trained, _ = open_trained(self._root, run)
        return Loaded(load_model(trained, join(device).device), load_tokenizer(trained.tokenizer.path))


@dataclass(frozen=True)
class PreparedArm:
    """An arm: which documents were taken. `facts`: what was counted, such as documents and bytes."""

    name: str
    pool: str
    """The name of its pool."""
    selection: Arm
    facts: Mapping[str, Any]
    _root: Root

    def documents(self) -> pa.Table:
        """The documents in the order in which the trainer meets them, one row each: rank, blob, row, score and more."""
        return pq.read_table(self._root.file(ArmFolder(self.name).text, DOCUMENTS))


class Loaded(NamedTuple):
    """A model, which maps token ids (B, T) to logits (B, T, vocab_size), and its tokenizer."""

    model: "GPT"
    tokenizer: "Tokenizer"

    def write(self, prompt: str, tokens: int = 128, sampling: "Sampling | None" = None, seed: int = 0) -> Iterator[str]:
        """What the model writes after `prompt`, piece by piece, at most so many tokens; it ends where the model ends its document.

        Raises InputError when the prompt is empty, or when it and the tokens are more than the model was trained to read.
        """
        from tasks.engines.builtin.writing import Sampling, write

        if not prompt.strip():
            raise InputError("The prompt is empty: give the beginning of a text.")
        tokenizer = self.tokenizer
        banned = [number for number in tokenizer.special_tokens.values() if number != tokenizer.bos]
        given = [tokenizer.bos, *tokenizer.encode(prompt)]
        written = write(self.model, given, tokens, sampling or Sampling(), seed, tokenizer.bos, banned)
        return _pieces(tokenizer, written)


def _pieces(tokenizer: "Tokenizer", tokens: Iterator[int]) -> Iterator[str]:
    """The text of tokens as they come. A character whose bytes are not all there yet waits for the next token."""
    ids: list[int] = []
    shown = text = ""
    for token in tokens:
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):
            yield text[len(shown) :]
            shown = text
    if text != shown:
        yield text[len(shown) :]
