"""The reports that a stack serves: whole pages for who has its password, nothing for anybody else."""

import threading
from base64 import b64encode

import httpx
import pytest

from infra.local import pages
from tasks.errors import InputError
from tasks.records.layout import REPORT, LadderFolder
from tasks.reports.report import write_report, write_verdict
from tasks.verdict.judge import judge

PASSWORD = "fabrating:secret"


@pytest.fixture
def served(bench):
    server = pages.serve(0, str(bench.root.folder), PASSWORD)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def get(url, password=PASSWORD):
    headers = {"Authorization": f"Basic {b64encode(password.encode()).decode()}"} if password else {}
    return httpx.get(url, headers=headers, trust_env=False)


@pytest.mark.parametrize("password", ["", "fabrating", "fabrating:"])
def test_nothing_is_served_without_a_password(bench, password):
    with pytest.raises(InputError, match="has no password"):
        pages.serve(0, str(bench.root.folder), password)


def test_reports_of_ladders_are_served_and_listed(bench, served):
    def make(work):
        work.temporary(REPORT).write_text("<p>predicted")
        work.finish(REPORT)

    made = bench.root.build(LadderFolder("to-d20-3333333333").name, make, spec={})
    assert get(f"{served}/{made.name}").text == "<p>predicted"
    assert f'href="{made.name}"' in get(served).text
    assert write_report(bench.root, made.path.name) == made.path / REPORT


def test_reports_of_runs_and_verdicts_are_served_and_listed(bench, served, tmp_path):
    arms = bench.arms(seeds=2, top16=-0.05, rand16=0.0)
    made = write_verdict(bench.root, judge(bench.root, "demo", arms))
    run = arms["top16"][0]
    assert get(f"{served}/{made.name}").text == (made.path / "report.html").read_text()
    assert run in get(f"{served}/runs/{run}").text
    listed = get(served)
    assert f'href="runs/{run}"' in listed.text and f'href="{made.name}"' in listed.text
    policy = listed.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "form-action 'none'" in policy
    elsewhere = get(f"{served}/runs/{run}?root={tmp_path / 'elsewhere'}")
    assert elsewhere.status_code == 404 and "There is no root" in elsewhere.text
    assert not (tmp_path / "elsewhere").exists(), "to look makes nothing"


@pytest.mark.parametrize("password", [None, "fabrating:wrong", "fabrating:", "other:secret"])
def test_nobody_without_the_password_sees_a_page(bench, served, password):
    bench.arms(seeds=1, top16=0.0)
    for path in ("/", "/runs/x", "/verdicts/x", "/nothing"):
        refused = get(served + path, password)
        assert refused.status_code == 401 and refused.headers["WWW-Authenticate"].startswith("Basic")
        assert "top16" not in refused.text


@pytest.mark.parametrize(
    "path", ["/runs/..%2F..%2Fetc", "/runs/a/b", "/pools/x", "/runs/%3Cscript%3E", "/runs/x?root=az://a?sig=s", "//["]
)
def test_what_is_no_report_is_one_sentence(served, path):
    found = get(served + path)
    assert found.status_code == 404 and "<script>" not in found.text and "Traceback" not in found.text
