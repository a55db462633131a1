"""Whether a checkout of nanochat is what the overlay hooks, told from its parsed code, not from line numbers.

Nothing of the checkout is imported or run. `differences` names each place that is not as expected; `identify` says which
commit it is, by Git and by a fingerprint of the code that the hooks touch, so that an archive without Git, or a commit that
only changed prose, is recognized as well.
"""

import ast
import hashlib
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.engines.nanochat import contract
from tasks.errors import InputError

log = logging.getLogger(__name__)

SCRIPT = "scripts/base_train.py"
HOOKED = (
    "nanochat/common.py",
    "nanochat/dataset.py",
    "nanochat/dataloader.py",
    "nanochat/loss_eval.py",
    "nanochat/checkpoint_manager.py",
    "nanochat/tokenizer.py",
    "nanochat/gpt.py",
    "nanochat/optim.py",
    SCRIPT,
)
"""The files that determine what a run computes and what the hooks rely on."""

PARAMETERS = {
    ("nanochat/common.py", "compute_init"): ("device_type",),
    ("nanochat/common.py", "get_dist_info"): (),
    ("nanochat/loss_eval.py", "evaluate_bpb"): ("model", "batches", "steps", "token_bytes"),
    ("nanochat/checkpoint_manager.py", "save_checkpoint"): (
        "checkpoint_dir",
        "step",
        "model_data",
        "optimizer_data",
        "meta_data",
        "rank",
    ),
}
IMPORTS = {
    (SCRIPT, "nanochat.common"): ("compute_init",),
    (SCRIPT, "nanochat.loss_eval"): ("evaluate_bpb",),
    (SCRIPT, "nanochat.checkpoint_manager"): ("save_checkpoint", "load_checkpoint"),
    ("nanochat/dataloader.py", "nanochat.dataset"): ("list_parquet_files",),
    ("nanochat/dataloader.py", "nanochat.common"): ("get_dist_info",),
}
NAMED = 8
"""Differences that a message names."""
LOG_LINES = (
    ("step ", "/", " | loss: ", " | lrm: ", " | dt: ", "ms | tok/sec: ", " | "),
    ("Step ", " | Validation bpb: "),
)
"""Literal pieces, in order, of the lines that the log reader parses."""
PARQUET = {"num_row_groups", "read_row_group"}


@dataclass(frozen=True)
class Identity:
    """Which nanochat a checkout holds: `known` where its code is that of a commit known to work."""

    commit: str | None
    code: str
    known: contract.Upstream | None

    @property
    def name(self) -> str:
        """For messages, metrics and the ledger."""
        if self.known is not None:
            return self.known.commit
        return self.commit or f"without Git, code {self.code}"


def require(source: Path, *, allow_unknown: bool) -> Identity:
    """The identity of a checkout that can be trained with.

    Raises InputError when it is none, when a hooked place differs, or when its code is that of no commit known to work and
    `allow_unknown` is False.
    """
    if not (source / SCRIPT).is_file():
        raise InputError(
            f"{source} is no checkout of nanochat (it has no {SCRIPT}): clone {contract.REPOSITORY} there."
        )
    identity = identify(source)
    found = differences(source)
    if found:
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        raise InputError(
            f"The nanochat in {source} (commit {identity.name}) is not what the overlay hooks: {'; '.join(found[:NAMED])}{more}: "
            f"check out {contract.PINNED.commit}."
        )
    if identity.known is None and not allow_unknown:
        raise InputError(
            f"The nanochat in {source} (commit {identity.name}) is none that is known to work: check out "
            f"{contract.PINNED.commit}, or set {contract.ALLOW_VARIABLE}=1 to try it."
        )
    return identity


def identify(source: Path) -> Identity:
    """Commit (where the checkout has Git), fingerprint of the hooked code, and the known commit with the same code."""
    code = fingerprint(source)
    known = next((upstream for upstream in contract.KNOWN if upstream.code == code), None)
    return Identity(_git_commit(source), code, known)


def _git_commit(source: Path) -> str | None:
    if not (source / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(source), "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=30
        )
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("The commit of %s is not known: %s", source, error)
        return None
    return done.stdout.strip()


def fingerprint(source: Path) -> str:
    """Ten hexadecimal digits of the hooked files' syntax trees: comments and layout do not count."""
    digest = hashlib.sha256()
    for name in HOOKED:
        digest.update(repr((name, _shape(_parse(source / name)))).encode())
    return digest.hexdigest()[:10]


def _shape(node: object) -> object:
    """A syntax tree as nested tuples that are the same in every supported version of Python."""
    if isinstance(node, ast.AST):
        fields = [(name, _shape(value)) for name, value in ast.iter_fields(node) if value not in (None, [])]
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return tuple(_shape(item) for item in node)
    return repr(node)


def _parse(path: Path) -> ast.Module:
    """The syntax tree of a file; an empty one when it is missing. Raises InputError when it is no Python."""
    try:
        return ast.parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ast.Module([], [])
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{path} cannot be parsed ({error}): check out {contract.PINNED.commit} again.") from error


def differences(source: Path) -> list[str]:
    """Each hooked place that is not as expected, as a phrase that names it. Empty: the overlay fits."""
    trees = {name: _parse(source / name) for name in HOOKED}
    return [
        *(f"{name} is missing" for name, tree in trees.items() if not tree.body),
        *_functions(trees),
        *_imports(trees),
        *_loader(trees["nanochat/dataloader.py"]),
        *_model(trees["nanochat/gpt.py"]),
        *_tokenizer(trees["nanochat/tokenizer.py"]),
        *_precision(source),
        *_script(trees[SCRIPT]),
    ]


def _functions(trees: dict[str, ast.Module]) -> Iterator[str]:
    for (file, name), wanted in PARAMETERS.items():
        function = _function(trees[file], name)
        if function is None:
            yield f"{file} has no function {name}"
        elif (found := tuple(argument.arg for argument in function.args.args)) != wanted:
            yield f"{name} in {file} takes ({', '.join(found)}) instead of ({', '.join(wanted)})"
    function = _function(trees["nanochat/dataset.py"], "list_parquet_files")
    if function is None:
        yield "nanochat/dataset.py has no function list_parquet_files"
    elif not {argument.arg for argument in function.args.args} <= {"data_dir", "warn_on_legacy"}:
        yield "list_parquet_files in nanochat/dataset.py takes parameters that the overlay does not know"


def _function(tree: ast.AST, name: str) -> ast.FunctionDef | None:
    functions = (node for node in getattr(tree, "body", []) if isinstance(node, ast.FunctionDef))
    return next((node for node in functions if node.name == name), None)


def _imports(trees: dict[str, ast.Module]) -> Iterator[str]:
    for (file, module), wanted in IMPORTS.items():
        imports = [n for n in ast.walk(trees[file]) if isinstance(n, ast.ImportFrom) and n.module == module]
        names = {alias.name for node in imports for alias in node.names if alias.asname in (None, alias.name)}
        for name in wanted:
            if name not in names:
                yield f"{file} does not import {name} from {module}"


def _loader(tree: ast.Module) -> Iterator[str]:
    """The loader opens files as `pq.ParquetFile(...)` and asks them for nothing but row groups."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    of_pq = {a.attr for a in attributes if isinstance(a.value, ast.Name) and a.value.id == "pq"}
    if of_pq != {"ParquetFile"}:
        yield f"nanochat/dataloader.py uses {sorted(of_pq)} of pyarrow.parquet instead of ParquetFile alone"
    files = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("pq.ParquetFile(")
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    used = {a.attr for a in attributes if isinstance(a.value, ast.Name) and a.value.id in files}
    if used != PARQUET:
        yield f"nanochat/dataloader.py asks parquet files for {sorted(used)} instead of {sorted(PARQUET)}"


def _model(tree: ast.Module) -> Iterator[str]:
    model = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "GPT"), None)
    forward = _function(model, "forward") if model is not None else None
    names = {argument.arg for argument in forward.args.args} if forward is not None else set()
    if not {"targets", "loss_reduction"} <= names:
        yield "GPT.forward in nanochat/gpt.py does not take targets and loss_reduction"


def _tokenizer(tree: ast.Module) -> Iterator[str]:
    values = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for name, wanted in (("SPECIAL_TOKENS", list(contract.SPECIAL_TOKENS)), ("SPLIT_PATTERN", contract.PATTERN)):
        try:
            same = ast.literal_eval(values[name]) == wanted
        except (KeyError, ValueError):
            same = False
        if not same:
            yield f"{name} in nanochat/tokenizer.py is another one"


def _precision(source: Path) -> Iterator[str]:
    """TF32 is allowed nowhere but in compute_init, where the overlay takes it over."""
    for path in [*sorted(source.glob("nanochat/*.py")), source / SCRIPT]:
        tree = _parse(path)
        start = _function(tree, "compute_init") if path.name == "common.py" else None
        inside = set(ast.walk(start)) if start is not None else set()
        for node in ast.walk(tree):
            if node not in inside and _sets_precision(node):
                yield f"{path.relative_to(source)} sets the precision of fp32 products outside of compute_init"


def _sets_precision(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign):
        targets = [target.attr for target in node.targets if isinstance(target, ast.Attribute)]
        return any(target in ("fp32_precision", "allow_tf32") for target in targets)
    called = node.func if isinstance(node, ast.Call) else None
    return isinstance(called, ast.Attribute) and called.attr == "set_float32_matmul_precision"


def _script(tree: ast.Module) -> Iterator[str]:
    options = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("add_argument") and node.args
        if isinstance(node.args[0], ast.Constant)
    }
    for option in sorted(set(contract.OPTIONS) - options):
        yield f"{SCRIPT} has no option {option}"
    if not any(_evaluates_then_saves(node) for node in tree.body if isinstance(node, ast.While)):
        yield f"{SCRIPT} has no training loop that evaluates, then saves"
    lines = [_literals(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)]
    for pieces in LOG_LINES:
        if not any(_in_order(pieces, line) for line in lines):
            yield f"{SCRIPT} prints no line {'...'.join(pieces)!r}"


def _evaluates_then_saves(loop: ast.While) -> bool:
    """A loop whose body has `if ...: save_checkpoint(...)` after `if ...: ... evaluate_bpb(...)`."""
    first: dict[str, int] = {}
    for place, statement in enumerate(loop.body):
        for node in ast.walk(statement) if isinstance(statement, ast.If) else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                first.setdefault(node.func.id, place)
    return first.get("evaluate_bpb", len(loop.body)) < first.get("save_checkpoint", -1)


def _literals(node: ast.JoinedStr) -> str:
    """An f-string with a NUL for each value."""
    return "".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)


def _in_order(pieces: tuple[str, ...], line: str) -> bool:
    if not line.startswith(pieces[0]):
        return False
    place = 0
    for piece in pieces:
        place = line.find(piece, place)
        if place < 0:
            return False
        place += len(piece)
    return True
