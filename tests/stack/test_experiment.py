"""`experiment/top16` on the running stack: from the command line and from the UI's run form, on blobs and on a folder."""

import json
import re
import shutil
from dataclasses import dataclass
from typing import Any

import pytest
from playwright.sync_api import sync_playwright
from prefect.client.schemas.objects import FlowRun

from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root
from tests.stack.conftest import (
    TRAIN,
    artifacts_of,
    children,
    parameters_with,
    run_by_command,
    run_deployment,
    runs_of,
)

pytestmark = pytest.mark.stack

MINUTES = 60


TOP16 = "experiment/top16"


def artifacts(client, run):
    return {f"{one.key.split('-')[0]} {one.type}": one for one in artifacts_of(client, run)}


@dataclass(frozen=True)
class Finished:
    """An experiment that ran: its parameters, its flow run, and the row of its table of scores."""

    parameters: dict[str, Any]
    run: FlowRun
    scores: dict[str, Any]


@pytest.fixture(scope="module")
def finished(stack, client, tmp_path_factory):
    """The run that these tests look at and build on."""
    given = parameters_with(stack, tmp_path_factory.mktemp("experiment") / "root")
    given["train"] = TRAIN | {"wandb": "auto"}  # with the key that the stack was given, which is refused
    run = run_by_command(stack, client, TOP16, given)
    assert run.state.is_completed()
    (scores,) = json.loads(artifacts(client, run)["scores table"].data)
    return Finished(given, run, scores)


def test_it_runs_from_the_command_line_on_blobs(client, finished):
    below = children(client, finished.run)
    assert set(below) == {"prepare", "train"}
    assert all(child.state.is_completed() for child in below.values())
    assert {name: child.work_pool_name for name, child in below.items()} == {"prepare": "cpu", "train": "gpu"}
    before = artifacts(client, below["prepare"])["plan markdown"].data
    for word in ("Documents taken", "steps", "time a run", "cost", "Score quantiles"):
        assert word.lower() in before.lower()
    run = Root(finished.parameters["root"]).open(f"runs/{finished.scores['run']}/result").facts
    low, high = re.search(r"Optimizer steps \| ([\d,]+) to ([\d,]+) \|", before).groups()
    assert int(low.replace(",", "")) <= run["steps"] <= int(high.replace(",", ""))
    packed = artifacts(client, finished.run)["plan markdown"].data
    assert f"Optimizer steps | {run['steps']:,} |" in packed
    assert f"Documents trained on | {run['trained_documents']:,} |" in packed
    assert any(kind.endswith("progress") for kind in artifacts(client, below["train"]))
    assert "data:image/svg+xml" in artifacts(client, finished.run)["loss markdown"].data
    assert finished.scores["bits per byte"] > 0
    deciles = json.loads(artifacts(client, finished.run)["deciles table"].data)
    assert len(deciles) == 10 and all(row[finished.scores["run"]] > 0 for row in deciles)


@pytest.mark.slow
def test_a_folder_gives_the_same_rows_as_blobs(stack, client, parameters, finished):
    given = {**parameters, "data": {**parameters["data"], "source": (stack.home / "sample" / "python-docs").as_uri()}}
    run = run_deployment(client, TOP16, given)
    (scores,) = json.loads(artifacts(client, run)["scores table"].data)
    assert scores["bits per byte"] == finished.scores["bits per byte"]
    rows = []
    for one in (finished.parameters, given):
        root = Root(one["root"])
        (packed,) = (name for name in root.names("arms") if "/packed/" in name)
        rows.append((root.path(packed) / "rows.bin").read_bytes())
    assert rows[0] == rows[1]


def test_bad_data_fails_before_children_run(stack, client, parameters):
    given = {**parameters, "data": {**parameters["data"], "source": "/nowhere/at/all"}}
    run = run_deployment(client, TOP16, given)
    assert run.state.is_failed()
    assert "/nowhere/at/all does not exist" in run.state.message
    assert children(client, run) == {}


def test_the_form_of_the_ui_asks_for_the_same_run_which_reuses_what_is_complete(stack, client, finished):
    """A person logs in, opens the run form, changes what is needed in place, submits, and follows the run's page to its end."""
    parameters = finished.parameters
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: apt install chromium")
    deployment = client.read_deployment_by_name(TOP16)
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=chromium, args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(90_000)
        page.goto(f"{stack.ui}/deployments/deployment/{deployment.id}/run")
        page.locator("input[type=password]").fill(stack.password)
        page.get_by_role("button", name="Login").click()
        for model, group in ((Pool, "data"), (Training, "train")):
            for name, value in parameters[group].items():
                if value == model.model_fields[name].default:
                    continue
                written = "200k" if name == "tokenizer_characters" else value  # 200,000, as a person writes it
                fill(page, model.model_fields[name].description, written)
        fill(page, "Where artifacts are kept", parameters["root"])
        assert field(page, Arm.model_fields["share"].description).locator("input").input_value() == "0.165"
        run = submit(page, client, TOP16)
        page = browser.new_context().new_page()  # a person who comes straight to the address that a command printed
        page.set_default_timeout(90_000)
        page.goto(stack.page(run.id))
        page.locator("input[type=password]").fill(stack.password)
        page.get_by_role("button", name="Login").click()
        page.get_by_text("Completed", exact=True).first.wait_for(timeout=6 * MINUTES * 1_000)
        browser.close()
    run = client.read_flow_run(run.id)
    assert run.state.is_completed()
    given = {key: run.parameters[group][key] for group in ("data", "train") for key in parameters[group]}
    assert given == {**parameters["data"], **parameters["train"]}
    assert children(client, run) == {}
    (scores,) = json.loads(artifacts(client, run)["scores table"].data)
    assert (scores["run"], scores["bits per byte"]) == (finished.scores["run"], finished.scores["bits per byte"])


def field(page, description):
    """The innermost box of the run form that shows a description (a little markdown, shown without its marks)."""
    return page.locator(".schema-form-property").filter(has_text=description.replace("`", "")).last


def submit(page, client, deployment):
    """Press Submit until there is a new run, which is returned: a key that comes while the form is drawn anew goes nowhere."""
    before = len(runs_of(client, deployment))
    for _ in range(6):
        page.get_by_role("button", name="Submit").press("Enter")  # see `fill`
        for _ in range(60):
            page.wait_for_timeout(250)
            if len(runs := runs_of(client, deployment)) > before:
                return runs[0]
    raise AssertionError(f"nothing was submitted; the page says: {page.locator('body').inner_text()}")


def fill(page, description, value):
    """Put a value into the field with a description, as its kind asks for."""
    box = field(page, description)
    box.wait_for()
    select = box.locator(".p-select-button__control")
    if select.count():
        select.press("ArrowDown")  # a click is swallowed where it scrolls the page
        page.locator(".p-select-option").get_by_text(str(value), exact=True).click()
        return
    kind = box.get_by_role("button", name="str" if isinstance(value, str) else "int", exact=True)
    if kind.count():
        kind.click()
    box.locator("input[type=number], textarea").fill(str(value))
