"""The secrets of the runs before this test, and of runs that fail over theirs: each is where it must be, and nowhere else."""

import base64
import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.local import azurite
from infra.local.stack import PROJECT, full_environment
from tests.stack.conftest import COMMANDS, PLANTED, wait

pytestmark = pytest.mark.stack
KEY = base64.b64encode(b"a planted key that the store refuses").decode()
TRIED = {
    "a wrong key": ("survey", {"AZURE_STORAGE_CONNECTION_STRING": "{store}AccountKey=" + KEY}),
    "no key at all": ("survey", {"AZURE_STORAGE_CONNECTION_STRING": "{store}AccountKey=plantedIllegibleKey!"}),
    "a refused signature": (
        "survey",
        {
            "AZURE_STORAGE_CONNECTION_STRING": "{store}SharedAccessSignature=sv=2022-11-02&sig=plantedSignatureRefused%3D"
        },
    ),
    "a store that is away": (
        "survey",
        {
            "AZURE_STORAGE_CONNECTION_STRING": "BlobEndpoint=http://127.0.0.1:1/x;AccountName=x;"
            "SharedAccessSignature=sv=2022-11-02&sig=plantedSignatureUnanswered%3D"
        },
    ),
    "a signed URL": ("signed", {}),
    "a wrong passphrase": ("login", {"FABRATING_SSH_PASSPHRASE": "plantedPassphraseThatIsWrong"}),
    "a bug": ("bug", {}),
}
"""What a flow does, and the environment in which it fails."""
SIGNED = "az://sample/python-docs?sv=2022-11-02&sig=plantedSignatureOfAUrl%3D"
CORE = re.compile(r"(?:planted|hf_|badbad)\w{10,}|[\w+/-]{30,}(?==*$|=*[;\"])")
FLOWS = """
import json, os, sys
from prefect import flow
from tasks.corpus.pool.survey import survey
from tasks.hosts.ssh import Remote
from tasks.spec import Host, Pool
from tasks.store import access

access.RETRIES = {"max_retries": 0}
key, signed, tried = json.load(sys.stdin)

def bug():
    environment = dict(os.environ)
    raise RuntimeError(f"{len(environment)} variables")

calls = {
    "survey": lambda: survey("az://sample/python-docs", pool=Pool()),
    "signed": lambda: survey(signed, pool=Pool()),
    "login": lambda: Remote(Host(address="127.0.0.1", port=1, key_file=key)).run("true"),
    "bug": bug,
}
for name, (call, environment) in tried.items():
    os.environ.update(environment)
    try:
        flow(name=name)(calls[call])()
        print("PASSED", name)
    except Exception as error:
        print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def told(stack, tmp_path_factory) -> str:
    """What is printed when flows fail over their secrets, with the words of the server and of the doctor."""
    folder = tmp_path_factory.mktemp("failing")
    options = ["-t", "ed25519", "-m", "PEM", "-N", "another", "-f", str(folder / "key")]
    subprocess.run(["ssh-keygen", "-q", *options], check=True)
    store = azurite.connection_string(stack.azurite_port, "").replace("AccountKey=;", "")
    tried = {
        name: (call, {variable: value.replace("{store}", store) for variable, value in given.items()})
        for name, (call, given) in TRIED.items()
    }
    environment = full_environment(stack) | PLANTED
    flows = run([sys.executable, "-c", FLOWS], environment, json.dumps([str(folder / "key"), SIGNED, tried]))
    assert "PASSED" not in flows and flows.count("Error ") >= len(TRIED), flows
    wrong = tried["a wrong key"][1] | {"PREFECT_API_AUTH_STRING": "fabrating:plantedPasswordThatIsWrong"}
    commands = [("doctor", "--json"), ("inspect", "az://sample/python-docs")]
    said = [run([sys.executable, "-m", "infra.cli", *one], environment | wrong) for one in commands]
    assert "az://sample/python-docs cannot be listed" in said[1]
    name, _, word = stack.password.partition(":")
    refused = httpx.post(
        f"{stack.api}/deployments/{deployment(stack, 'experiment/top16')}/create_flow_run",
        json={"parameters": {"root": SIGNED}},
        auth=(name, word),
        timeout=30,
    )
    assert refused.status_code in (409, 422)
    return "\n".join([flows, *said])


@pytest.fixture(scope="module")
def secrets(stack) -> dict[str, str]:
    """All of them by name, reduced to what every encoding but base64 leaves as it is; and how the API's goes over the wire."""
    given = PLANTED | {name: value for name, (_, case) in TRIED.items() for value in case.values()}
    given |= {"a signed URL": SIGNED, "the password": stack.password.partition(":")[2], "azurite.key": stack.store_key}
    found = {name: CORE.search(text)[0] for name, text in given.items()}
    return found | {"the password on the wire": base64.b64encode(stack.password.encode()).decode().rstrip("=")}


def holding(secrets: dict[str, str], places: dict[str, bytes]) -> list[tuple[str, str]]:
    return [
        (name, where)
        for where, content in places.items()
        for name, value in secrets.items()
        if value.encode() in content
    ]


def test_secrets_are_nowhere_in_what_is_said_and_in_no_command_line(stack, told, secrets):
    assert all(len(value) > 15 for value in secrets.values()), secrets
    assert holding(secrets, {"what was printed": told.encode()}) == []
    assert any(b"tasks.engines.builtin" in line or b"infra.cli" in line for line in COMMANDS)
    assert holding(secrets, {line.decode("latin1"): line for line in list(COMMANDS)}) == []


def test_secrets_are_nowhere_in_the_database_in_logs_and_below_roots(stack, client, told, secrets, tmp_path):
    def dumped() -> str:
        with sqlite3.connect(stack.home / "prefect" / "prefect.db") as server, sqlite3.connect(tmp_path / "db") as copy:
            server.backup(copy)  # with what is still in the write-ahead log
            return "\n".join(copy.iterdump())

    wait(
        lambda: re.search(r"RuntimeError: \d+ variables", dumped()), 60
    )  # the traceback of the last flow: logs are sent in batches
    assert all(f"'{name}'" in dumped() for name in TRIED) and "maintenance" in dumped()
    assert holding(secrets, {"database": dumped().encode()}) == []
    allowed = {str(stack.home / name) for name in ("password", "azurite.key", "env")}
    own = holding(secrets, {path: Path(path).read_bytes() for path in allowed})
    assert {name for name, _ in own} == {"the password", "azurite.key"}
    found = []
    for folder, _, files in os.walk(stack.home.parent):  # roots of the other tests in this process among them
        for name in files:
            path = Path(folder, name)
            if str(path) not in allowed and path.is_file():
                found += holding(secrets, {str(path): path.read_bytes()})
    assert found == []


def run(command: list[str], environment: dict[str, str], given: str = "") -> str:
    done = subprocess.run(
        command, env=environment, cwd=PROJECT, input=given, capture_output=True, text=True, timeout=300
    )
    return done.stdout + done.stderr


def deployment(stack: Any, name: str) -> str:
    found = httpx.get(f"{stack.api}/deployments/name/{name}", auth=tuple(stack.password.split(":", 1)), timeout=30)
    return found.json()["id"]
