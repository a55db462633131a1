"""Commands that pages show are those that there are: names, options, deployments, parameters, targets, modules; cheap ones run."""

import argparse
import ast
import importlib
import importlib.util
import json
import re
import runpy
import subprocess
import sys
from functools import cache

import pytest
import typer
import typer.core
import yaml
from prefect.cli._app import _app as prefect_app
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate
from typer.testing import CliRunner

import fabrating
from infra.cli.main import app
from infra.local import deploy
from tasks.spec.written import read
from tasks.verdict.form import ComparisonForm
from tests.docs.shown import CHECKOUT, PROGRAMS, blocks, commands, named, pages

PAGES = pages()
FABRATING = typer.main.get_command(app)
DEPLOYMENTS = yaml.safe_load((deploy.DEPLOYMENTS / "prefect.yaml").read_text())["deployments"]
CHEAP = {"design", "estimate", "init", "ls", "runs"}
"""What is run, in an empty folder: commands that read a root, which has nothing in it yet, or nothing."""
each_page = pytest.mark.parametrize("page", PAGES)


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FABRATING_ROOT", str(tmp_path / "root"))
    (tmp_path / "root").mkdir()


def parse(command):
    """Parse a command that a page shows whole. Raises what the program's own parser raises."""
    {"fabrating": _fabrating, "prefect": _prefect, "make": _make, "python": _python}[command[0]](command[1:])


def _fabrating(words):
    if words[0].startswith("-"):
        assert words[0] in _flags(FABRATING), words
        return
    assert words[0] in FABRATING.commands, f"there is no command {words[0]}"
    FABRATING.commands[words[0]].make_context(words[0], words[1:])


def _prefect(words):
    function, bound, _ = prefect_app.parse_args(words, print_error=False, exit_on_error=False)
    if function.__name__ == "run" and words[0] == "deployment":
        given = bound.arguments.get("multiparams")
        _deployed(bound.arguments["name"], json.loads(given) if given else {})


def _deployed(label, parameters):
    """There is such a deployment, and the server and its flow would take the parameters."""
    flows = {f"{_flow(each['entrypoint']).name}/{each['name']}": each for each in DEPLOYMENTS}
    assert label in flows, f"there is no deployment {label}"
    flow, whole = _flow(flows[label]["entrypoint"]), flows[label].get("parameters", {}) | parameters
    errors = validate(whole, parameter_schema(flow).model_dump_for_openapi() | {"additionalProperties": False})
    assert not errors, (label, errors)
    flow.validate_parameters(whole)


def _flow(entrypoint):
    path, _, name = entrypoint.partition(":")
    return getattr(importlib.import_module(path.removesuffix(".py").replace("/", ".")), name)


@cache
def _targets():
    return set(re.search(r"^\.PHONY: (.*)$", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)[1].split())


def _make(words):
    if words[0] == "-C":
        words = words[2:]
    variables = [word for word in words if "=" in word]
    assert {*words} - {*variables} <= _targets(), words
    for variable in variables:
        assert f"$({variable.partition('=')[0]})" in (CHECKOUT / "Makefile").read_text(), variable


def _python(words):
    """A module that runs. Those that measure parse their words, and are stopped then."""
    assert words[0] == "-m", words
    name = words[1]
    found = importlib.util.find_spec(name)
    assert found, f"there is no module {name}"
    assert found.submodule_search_locations is None or importlib.util.find_spec(f"{name}.__main__"), words
    if name.startswith(("benchmarks.", "tests.")):
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Parsed):
            patch.setattr(sys, "argv", words[1:])
            patch.setattr(argparse.ArgumentParser, "parse_args", _and_stop)
            patch.setattr(CLICK, "invoke", _stop)
            runpy.run_module(name, run_name="__main__")


class Parsed(Exception):
    """The words were parsed: what would come now takes long."""


CLICK = next(kind for kind in typer.core.TyperCommand.__mro__ if kind.__name__ == "Command")
"""The class of Typer's own Click that runs commands and, above them, groups."""
_PARSE, _INVOKE = argparse.ArgumentParser.parse_args, CLICK.invoke


def _and_stop(parser, args=None, namespace=None):
    _PARSE(parser, args, namespace)
    raise Parsed


def _stop(command, context):
    if context.invoked_subcommand is None:
        raise Parsed
    return _INVOKE(command, context)


def _flags(command):
    return {flag for param in command.params for flag in (*param.opts, *param.secondary_opts)} | {"--help"}


@each_page
def test_commands_of_sh_blocks_parse(page):
    for block in blocks(page, "sh"):
        assert subprocess.run(["sh", "-n"], input=block, text=True).returncode == 0, block
        for command in commands(block):
            try:
                parse(command)
            except (Exception, SystemExit) as error:
                pytest.fail(f"{page}: {' '.join(command)}: {error or type(error).__name__}")


@each_page
def test_commands_in_sentences_exist_with_their_options(page):
    for program, *words in named(page):
        if program == "prefect":
            assert prefect_app.parse_commands(words)[0], (page, words)
        elif program == "make":
            assert words[0] in _targets(), (page, words)
        elif program == "python":
            try:
                _python(words if any(word.startswith("--") for word in words) else [*words, "--help"])
            except SystemExit as ended:
                assert not ended.code, (page, words)
        elif words[0].startswith("-"):
            assert words[0] in _flags(FABRATING), (page, words)
        else:
            assert words[0] in FABRATING.commands, (page, words)
            options = {word.partition("=")[0] for word in words[1:] if word.startswith("--")}
            assert options <= _flags(FABRATING.commands[words[0]]), (page, words)


def cheap():
    """Commands that run as they stand in an empty folder, each once."""
    shown = [command for page in PAGES for block in blocks(page, "sh") for command in commands(block)]
    found = {tuple(words) for program, *words in shown if program == "fabrating" and {words[0]} & (CHEAP | {"--help"})}
    return sorted(words for words in found if not any("://" in word for word in words))


@pytest.mark.parametrize("words", cheap(), ids=" ".join)
def test_cheap_commands_run(words):
    done = CliRunner().invoke(app, list(words))
    assert done.exit_code == 0, (done.output, done.exception)
    assert len(done.output) > 20


def test_the_cheap_ones_are_found():
    assert {words[0] for words in cheap()} == CHEAP | {"--help"}


@each_page
def test_experiments_are_read_as_they_stand(page, tmp_path):
    for text in blocks(page, "yaml"):
        (tmp_path / "experiment.yaml").write_text(text)
        read(tmp_path / "experiment.yaml", ComparisonForm).spec()


@each_page
def test_python_imports_and_calls_what_there_is(page):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                assert all(hasattr(module, alias.name) for alias in node.names), (page, node.module)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "results":
                assert hasattr(fabrating.Results, node.attr), (page, node.attr)


WRONG = [
    "fabrating runns",
    "fabrating train ARM --deepth 4",
    "fabrating estimate 2X",
    "fabrating ls horses",
    "prefect deployment run experiment/top17",
    "prefect deployment rn experiment/top16",
    'prefect deployment run experiment/top16 --params \'{"train": {"deepth": 4}}\'',
    "make demoo",
    'make chaos CHOAS="--short"',
    "python -m benchmarks.verdicts",
    "python -m benchmarks.verdict cots",
    "python -m benchmarks.study run --smaller best",
    "cd x && sudo -u me sh -c 'fabrating deploi'",
]


@pytest.mark.parametrize("line", WRONG)
def test_what_is_not_there_is_found(line):
    (command,) = commands(line)
    assert command[0] in PROGRAMS
    with pytest.raises((Exception, SystemExit)):
        parse(command)
