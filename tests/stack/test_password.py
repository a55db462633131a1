"""The stack's API lets nobody in without its password, from no other page."""

import asyncio
import json
import os
import shutil
import stat
import subprocess
import sys
from base64 import b64encode

import httpx
import pytest
import websockets
from prefect.client.schemas.actions import ArtifactCreate

from infra.local import access, azurite
from infra.local import stack as stacks
from infra.local.access import is_open

pytestmark = pytest.mark.stack
OPEN = {("GET", "/api/health"), ("GET", "/api/ready")}


STRANGER = """
import json, sys, urllib.error, urllib.request
def answer(method, path, headers):
    try:
        request = urllib.request.Request(path if "://" in path else sys.argv[1] + path, method=method, headers=headers)
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code
routes, wrong = json.load(sys.stdin)
print(json.dumps([[method, path, answer(method, path, way)] for method, path in routes for way in ({}, wrong)]))
"""


def test_another_account_is_refused_on_every_route_and_report(stack, client):
    shown = client.create_artifact(ArtifactCreate(key="a-report", type="markdown", data="# A report"))
    routes = httpx.get(f"{stack.ui}/openapi.json", timeout=30).json()["paths"]
    asked = [(method.upper(), f"/api{path}") for path, ways in routes.items() for method in ways]
    asked += [("GET", f"/api/artifacts/{shown.id}"), ("GET", "/api/artifacts/a-report/latest")]
    asked += [("GET", f"{stack.reports}/"), ("GET", f"{stack.reports}/runs/x"), ("GET", f"{stack.reports}/verdicts/x")]
    asked += [("POST", "/api/flow_runs/filter"), ("GET", "/api/admin/settings"), *OPEN]
    wrong = {"Authorization": f"Basic {b64encode(b'fabrating:wrong').decode()}"}
    done = subprocess.run(
        [shutil.which("python3", path=os.defpath) or sys.executable, "-c", STRANGER, stack.ui],
        **({"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}),
        **{"input": json.dumps([asked, wrong]), "capture_output": True, "text": True, "check": True, "cwd": "/"},
    )
    answers = json.loads(done.stdout)
    assert len(answers) == 2 * len(asked) > 2 * 150
    assert {(method, path): code for method, path, code in answers if code != 401} == dict.fromkeys(OPEN, 200)
    name, _, word = stack.password.partition(":")
    own = httpx.get(f"{stack.ui}/api/artifacts/{shown.id}", auth=(name, word), timeout=30)
    assert own.json()["data"] == "# A report"
    assert httpx.get(f"{stack.reports}/", auth=(name, word), timeout=30).status_code == 200
    assert not is_open(stack.api)


@pytest.mark.parametrize("path", ["events/out", "events/in", "logs/out"])
def test_a_socket_without_the_password_is_closed(stack, path):
    async def greeted() -> None:
        address = f"{stack.api.replace('http', 'ws')}/{path}"
        async with websockets.connect(address, subprotocols=["prefect"]) as socket:
            await socket.send(json.dumps({"type": "auth", "token": "fabrating:wrong"}))
            await socket.send("{}")
            await socket.recv()

    with pytest.raises((websockets.ConnectionClosed, websockets.InvalidStatus)):
        asyncio.run(greeted())


def test_pages_of_other_origins_may_not_ask(stack):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = {
        origin: httpx.options(f"{stack.api}/flow_runs/filter", headers={**ask, "Origin": origin}).headers.get(
            "access-control-allow-origin"
        )
        for origin in ("http://elsewhere.example", stack.ui)
    }
    assert allowed == {"http://elsewhere.example": None, stack.ui: stack.ui}


def test_it_is_said_once_and_kept_where_only_its_owner_reads(stack, said):
    told = [line for line in said if stack.password in line]
    assert told == [f"The UI asks for a password: {stack.password} (kept in {stack.password_file})"]
    for name in ("password", "azurite.key", "env"):
        assert stat.S_IMODE((stack.home / name).stat().st_mode) == 0o600


def test_a_shell_that_names_the_stack_needs_no_password(stack, monkeypatch):
    monkeypatch.setenv(access.URL, stack.api)
    monkeypatch.setenv(access.PASSWORD, "somebody:else")
    assert stacks.server_environment(stack)[access.PASSWORD] == stack.password
    monkeypatch.setenv(access.URL, "https://elsewhere.example/api")
    assert stacks.server_environment(stack) == {access.URL: "https://elsewhere.example/api"}


def test_the_published_key_opens_no_store(stack):
    from azure.core.exceptions import ClientAuthenticationError, HttpResponseError
    from azure.storage.blob import BlobServiceClient

    if not stack.azurite_port:
        pytest.skip("the stack has no Azurite: its data lies in a folder")
    stranger = BlobServiceClient.from_connection_string(azurite.connection_string(stack.azurite_port), retry_total=0)
    with pytest.raises((ClientAuthenticationError, HttpResponseError)) as refused:
        list(stranger.list_containers())
    assert refused.value.status_code == 403
