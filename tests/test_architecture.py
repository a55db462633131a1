"""Imports run one way, Prefect stays at the edge, and no room spells another room's paths."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

from infra.local.deploy import PROJECT
from tasks.records import layout

LAYERS = (
    ("tasks.errors", "tasks.escaping", "tasks.progress", "tasks.cores"),
    ("tasks.store", "tasks.expression"),
    ("tasks.spec",),
    ("tasks.records",),
    ("tasks.corpus", "tasks.tokens", "tasks.engines", "tasks.verdict", "tasks.reports", "tasks.hosts"),
    ("flows",),
    ("fabrating",),
    ("deployments", "infra"),
)
"""From the bottom up. A part imports lower layers and itself, never its neighbours."""
PREFECT_HELPERS = ("tasks.steps",)
"""Shared by the flows and the rooms' steps.py."""
PREFECT = ("flows", "infra.local", "infra.doctor.server")
"""What may import Prefect, besides files named steps.py."""
STANDALONE = (
    "tasks.engines.export.modeling_fabrating",
    "tasks.engines.nanochat.overlay",
    "tasks.hosts.scripts",
)
"""Run elsewhere by themselves, so they can import nothing of ours, not even the layout."""
FILES = {
    name
    for name in vars(layout).values()
    if isinstance(name, str) and Path(name).suffix in (".json", ".jsonl", ".parquet", ".npy", ".bin")
}

# What is still wrong. Tests compare for equality, so whoever mends one of these deletes its line.
CIRCULAR: set[tuple[str, str]] = set()
PREFECT_ELSEWHERE: set[str] = set()
PATHS_SPELLED = {"tasks.engines.nanochat.tokenizer"}


@cache
def modules() -> dict[str, Path]:
    """The project's modules by dotted name; a package goes by its own name."""
    files = (
        path
        for part in ("tasks", "flows", "fabrating", "deployments", "infra")
        for path in (PROJECT / part).rglob("*.py")
    )
    return {
        ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in files
        if "node_modules" not in path.parts
    }


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text())


@cache
def imported(module: str) -> tuple[str, ...]:
    """Dotted names that a module imports anywhere, in functions too."""
    found: list[str] = []
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found += [name if name in modules() else str(node.module) for name in names]
    return tuple(found)


def inside(module: str, parts: tuple[str, ...]) -> bool:
    return any(module == part or module.startswith(f"{part}.") for part in parts)


def part_of(module: str) -> tuple[int, str] | None:
    """Layer and part of a module; None for Prefect's helpers, packages' roots and what is not ours."""
    return next(
        ((level, part) for level, parts in enumerate(LAYERS) for part in parts if inside(module, (part,))), None
    )


def test_every_module_has_its_layer():
    assert {name for name in modules() if part_of(name) is None} == {"tasks", *PREFECT_HELPERS}


def test_imports_run_downward():
    wrong = set()
    for module in modules():
        for target in imported(module):
            if inside(target, PREFECT_HELPERS):
                if not (inside(module, ("flows", *PREFECT_HELPERS)) or module.endswith(".steps")):
                    wrong.add((module, target))
            elif (here := part_of(module)) and (there := part_of(target)) and here != there and there[0] >= here[0]:
                wrong.add((module, target))
    assert wrong == set()


def test_what_stands_alone_imports_nothing_of_ours():
    for module in filter(lambda name: inside(name, STANDALONE), modules()):
        assert not [name for name in imported(module) if part_of(name)]


def test_no_module_imports_itself_through_others():
    graph = {
        module: {to for to in imported(module) if to in modules() and to != module and (module, to) not in CIRCULAR}
        for module in modules()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_known_circles_are_still_there():
    for module, target in CIRCULAR:
        assert target in imported(module)


def test_prefect_stays_at_the_edge():
    users = {
        module for module in modules() if any(inside(name, ("prefect", "prefect_dask")) for name in imported(module))
    }
    assert {name for name in users if not inside(name, PREFECT) and not name.endswith(".steps")} == PREFECT_ELSEWHERE


def strings(node: ast.AST) -> Iterator[str]:
    """One-line string literals, the pieces of f-strings among them."""
    for part in ast.walk(node):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and "\n" not in part.value:
            yield part.value


def test_rooms_take_paths_from_the_layout():
    folders = tuple(f"{kind}/" for kind in layout.KINDS)
    found = {
        module
        for module in modules()
        if module != layout.__name__ and not inside(module, STANDALONE)
        for text in strings(tree(module))
        if text in FILES or text.startswith(folders)
    }
    assert found == PATHS_SPELLED


def names_in(module: str) -> set[str]:
    """What a module defines or imports anywhere."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        match node:
            case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Import() | ast.ImportFrom():
                found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            case ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
    return found


def test_benchmarks_import_what_there_is():
    """Some import in functions that run on other machines or for minutes: a moved name would show there alone."""
    missing = set()
    for path in (PROJECT / "benchmarks").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in modules():
                for alias in node.names:
                    if f"{node.module}.{alias.name}" not in modules() and alias.name not in names_in(node.module):
                        missing.add((path.name, node.module, alias.name))
    assert missing == set()
