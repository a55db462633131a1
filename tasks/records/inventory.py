"""What lies under a root, by kind: pools, arms, runs, verdicts and ladders, what was made from each, and how one is removed.

A thing is found by its id, by `kind/id`, or by any part of its id that no other has, such as its fingerprint.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from tasks.errors import DamagedError, InputError
from tasks.records import ledger
from tasks.records.layout import (
    ARMS,
    ENTRY,
    KINDS,
    LADDERS,
    POOLS,
    RUNS,
    VERDICTS,
    ArmFolder,
    LadderFolder,
    PoolFolder,
    RunFolder,
    VerdictFolder,
)
from tasks.store.artifact import Manifest
from tasks.store.root import Root

Row = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Thing:
    """A pool, an arm, a run, a verdict or a ladder: `kind` is the folder below the root, `id` its name there."""

    kind: str
    id: str

    @property
    def folder(self) -> str:
        return f"{self.kind}/{self.id}"

    @property
    def what(self) -> str:
        """The run top16-d20-s1-0a1b2c3d4e."""
        return f"{self.kind.removesuffix('s')} {self.id}"


def things(root: Root, kind: str) -> list[Thing]:
    """All of a kind, half-made ones too, by id. Verdicts that are only registered do not count."""
    if kind == VERDICTS:
        return [Thing(kind, id) for id in VerdictFolder.all(root)]
    return [Thing(kind, id) for id in root.folders(kind)]


def matching(root: Root, name: str, kinds: Sequence[str]) -> list[Thing]:
    """What a person may mean: the thing with that id, else the runs with that name, else all whose id contains it."""
    kind, slash, rest = name.rstrip("/").partition("/")
    if slash and kind in KINDS:
        kinds, name = [kind], rest
    known = [each for kind in kinds for each in things(root, kind)]
    exact = [each for each in known if each.id == name]
    return exact or _called(root, name, kinds) or [each for each in known if name and name in each.id]


def find(root: Root, name: str, kinds: Sequence[str] = KINDS) -> Thing:
    """The thing that a person means. Raises InputError when there is none, or when several fit."""
    found = matching(root, name, kinds)
    if not found:
        *others, last = (kind.removesuffix("s") for kind in kinds)
        wanted = f"{', '.join(others)} or {last}" if others else last
        raise InputError(f"There is no {wanted} {name!r} under {root.url}: see `fabrating ls`.")
    if len(found) > 1:
        shown = ", ".join(each.folder for each in found[:6]) + (", ..." if len(found) > 6 else "")
        raise InputError(f"{name!r} fits several under {root.url}: {shown}. Give one of these.")
    return found[0]


def dependents(root: Root, thing: Thing) -> list[Thing]:
    """What was made from a thing: arms of a pool, runs of an arm, verdicts of a run, ladders of a verdict, and what was made from those."""
    made: dict[Thing, None] = {}
    for each in _made_from(root, thing):
        made |= dict.fromkeys([each, *dependents(root, each)])
    return list(made)


def remove(root: Root, thing: Thing) -> None:
    """Delete a thing here and in a remote root. What was made from it stays.

    The ledger entry of a run goes first and manifests go before files, so an interrupted removal leaves nothing that looks complete.
    Raises InputError when a run that trains uses the thing, DamagedError when a ledger entry cannot be read.
    """
    runs = [thing] if thing.kind == RUNS else things(root, RUNS) if thing.kind in (POOLS, ARMS) else []
    for run in runs:
        entry = ledger.find(root, run.id)
        if entry is not None and entry.active and thing.id in (entry.run, entry.arm_id, entry.pool_id):
            raise InputError(
                f"The {thing.what} is in use: the run {run.id} is {entry.state} on {entry.last.host}. Cancel it, or wait for its end."
            )
    if thing.kind == RUNS:
        root.delete(RunFolder(thing.id).file(ENTRY))
    root.remove_folder(thing.folder)


def listed(root: Root, kind: str) -> list[Row]:
    """One row a thing, newest first: what `fabrating ls` prints. What this version cannot read is a row too."""
    uses = Counter(_uses(root, kind))
    rows = {POOLS: _pool, ARMS: _arm, RUNS: _run, VERDICTS: _verdict, LADDERS: _ladder}
    found = []
    for each in things(root, kind):
        try:
            found.append((_made(root, each), rows[kind](root, each.id, uses[each.id])))
        except DamagedError:
            found.append(("", {kind.removesuffix("s"): each.id, "state": "unreadable"}))
    newest = sorted(found, key=lambda one: one[0], reverse=True)
    return [row | {"made": made[:16].replace("T", " ") or None} for made, row in newest]


def _called(root: Root, name: str, kinds: Sequence[str]) -> list[Thing]:
    """The runs to which a person gave this name."""
    if RUNS not in kinds:
        return []
    entries = [(run, _readable(ledger.find, root, run.id)) for run in things(root, RUNS)]
    return [run for run, entry in entries if entry is not None and entry.name == name]


def _made_from(root: Root, thing: Thing) -> Iterator[Thing]:
    """What was made from a thing itself."""
    if thing.kind in (POOLS, ARMS):
        below = ARMS if thing.kind == POOLS else RUNS
        for each, used in zip(things(root, below), _uses(root, thing.kind), strict=True):
            if used == thing.id:
                yield each
    elif thing.kind in (RUNS, VERDICTS):
        below, used = (VERDICTS, RunFolder(thing.id).result) if thing.kind == RUNS else (LADDERS, thing.folder)
        for each in things(root, below):
            made = _readable(Root.find, root, each.folder)
            if made is not None and used in made.inputs:
                yield each


def _uses(root: Root, kind: str) -> list[str | None]:
    """The pool of each arm (for `POOLS`) or the arm of each run (for `ARMS`); None where it is not known."""
    if kind == POOLS:
        texts = [_readable(Root.find, root, ArmFolder(arm.id).text) for arm in things(root, ARMS)]
        return [text.inputs.get("pool") if text is not None else None for text in texts]
    return [_arm_of(root, run.id) for run in things(root, RUNS)] if kind == ARMS else []


def _arm_of(root: Root, run: str) -> str | None:
    if (entry := _readable(ledger.find, root, run)) is not None:
        return entry.arm_id
    result = _readable(Root.find, root, RunFolder(run).result)
    return result.inputs.get("arm") if result is not None else None


def _readable(find: Callable[[Root, str], T | None], root: Root, name: str) -> T | None:
    """What is found, or None for what this version cannot read: one such record must not hide the others."""
    try:
        return find(root, name)
    except DamagedError:
        return None


def _made(root: Root, thing: Thing) -> str:
    """When it was made, ISO 8601 in UTC; "" for what is not complete."""
    whole = {
        POOLS: PoolFolder(thing.id).evaluation,
        ARMS: ArmFolder(thing.id).text,
        RUNS: RunFolder(thing.id).result,
        VERDICTS: VerdictFolder(thing.id).name,
        LADDERS: LadderFolder(thing.id).name,
    }
    manifest = root.find(whole[thing.kind])
    return manifest.created if manifest is not None else ""


def _pool(root: Root, id: str, arms: int) -> Row:
    index, held = root.find(PoolFolder(id).index), root.find(PoolFolder(id).holdout)
    return {
        "pool": id,
        "documents": index.facts.get("documents") if index else None,
        "holdout": held.facts.get("documents") if held else None,
        "arms": arms,
    }


def _arm(root: Root, id: str, runs: int) -> Row:
    folder = ArmFolder(id)
    text, packings = root.find(folder.text), folder.packings(root)
    packed = root.find(folder.packed(*packings[-1])) if packings else None
    return {
        "arm": id,
        "documents": text.facts.get("documents") if text else None,
        "tokens": packed.facts.get("tokens") if packed else None,
        "runs": runs,
    }


def _run(root: Root, id: str, _: int) -> Row:
    entry, result = ledger.find(root, id), root.find(RunFolder(id).result)
    state = entry.state if entry else "completed" if result else "incomplete"
    bpb = entry.bpb if entry else result.facts.get("bpb") if result else None
    return {"run": id, "bits per byte": bpb, "state": state}


def _verdict(root: Root, id: str, _: int) -> Row:
    made = root.manifest(VerdictFolder(id).name)
    runs = [name for name in made.inputs if name == RunFolder.of(name).result]
    return {"verdict": id, "runs": len(runs), "says": _says(made)}


def _ladder(root: Root, id: str, _: int) -> Row:
    made = root.find(LadderFolder(id).name)
    return {"ladder": id, "verdicts": len(made.inputs) if made else None} | ({"says": _says(made)} if made else {})


def _says(made: Manifest) -> list[str]:
    """The conclusions of a verdict or a ladder, without what follows the first sentence of each."""
    return [sentence.partition(". ")[0].removesuffix(".") for sentence in made.facts.get("sentences", ())]
