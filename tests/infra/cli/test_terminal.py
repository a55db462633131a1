"""What the command prints for people: nested findings as tables, text from outside as it is."""

import io
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from infra.cli import terminal
from infra.cli.main import app
from tasks.engines.turns import turn
from tasks.errors import InputError, InterruptedRun
from tasks.store.root import Root


@pytest.fixture
def shown(monkeypatch):
    console = Console(width=120, record=True, file=io.StringIO())
    monkeypatch.setattr(terminal, "out", console)
    return lambda: console.export_text()


def lines(text):
    return [line.split() for line in text.splitlines() if line.strip()]


def test_mappings_under_names_become_rows_below_the_lines(shown):
    terminal.show({"columns": {"text": {"bytes": 1_234}, "id": {"bytes": 5, "nulls": 1}}, "files": 2}, False)
    assert lines(shown()) == [["files", "2"], ["columns"], ["bytes", "nulls"], ["text", "1,234", "-"], ["id", "5", "1"]]


def test_lists_under_names_become_rows_too_and_their_text_is_no_markup(shown):
    terminal.show({"examples": {"top": [{"text": "[red]x"}, {"text": "y"}], "bottom": [{"text": "[/]"}]}}, False)
    assert lines(shown()) == [["examples"], ["text"], ["top", "[red]x"], ["top", "y"], ["bottom", "[/]"]]


def test_plain_values_and_empty_ones_stay_lines(shown):
    terminal.show({"spread": {"least": 1, "most": 2}, "bad": [], "none": {}, "speed": 3_869.5685, "loss": 0.5}, False)
    assert lines(shown()) == [
        ["spread", "least:", "1,", "most:", "2"],
        *(["bad", "-"], ["none", "-"], ["speed", "3,869.6"], ["loss", "0.5"]),
    ]


def test_numbers_that_are_not_finite_are_null_in_json(capsys):
    terminal.show({"loss": float("nan"), "ends": (0.5, float("-inf"))}, True)
    terminal.show_rows([{"loss": float("inf")}], True)
    printed = "".join(capsys.readouterr().out.split())
    assert printed == '{"loss":null,"ends":[0.5,null]}[{"loss":null}]'


def test_words_of_a_stranger_move_no_cursor_and_open_no_markup(shown, capsys):
    evil = "\x1b[2J[bold]a\x9b\r\nb"
    terminal.show({"a\x1b[1m[red]": evil, "rows": [{evil: evil}]}, False)
    printed = shown()
    assert printed.count("[bold]a") == 3 and "[red]" in printed
    with pytest.raises(SystemExit), terminal.plain_errors():
        raise InputError(f"{evil} is no name.")
    assert all(c.isprintable() or c == "\n" for c in printed + capsys.readouterr().err.replace("\ufffd", ""))


class Refusing(BaseHTTPRequestHandler):
    """A store that knows nobody."""

    def do_GET(self):
        self.send_error(403)

    def log_message(self, *said):
        pass


@pytest.mark.parametrize("command", [("report", "nope"), ("leaks", "nope"), ("runs",)], ids=" ".join)
def test_a_store_that_refuses_is_one_sentence(command, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "REGION": "us-east-1"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        done = CliRunner().invoke(app, [*command, "--root", "s3://bucket/root"])
    finally:
        server.shutdown()
        server.server_close()
    assert done.exit_code == 1 and done.stderr.count("\n") == 1, done.exception
    assert "403" in done.stderr and "the credentials" in done.stderr


def test_who_waits_for_another_training_is_told_so(tmp_path, capsys):
    root = Root(str(tmp_path))
    second = turn(root, "second", "cpu", stop=lambda: True)
    with terminal.telling(), turn(root, "first", "cpu"), pytest.raises(InterruptedRun):
        second.__enter__()
    said = capsys.readouterr().err
    assert said.count("second waits for its turn: run first (process ") == 1
    assert not logging.getLogger("tasks").handlers
