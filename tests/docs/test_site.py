"""The site builds, each link of a page leads somewhere, and one that does not is named."""

import os
import shutil
import subprocess
import sys

import pytest

from tests.docs.shown import CHECKOUT

pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install -r requirements-docs.lock, or make docs")


def built(folder, site):
    """The output and exit status of a strict build."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.stdout + done.stderr, done.returncode


def test_the_site_builds_and_every_link_leads_somewhere(tmp_path):
    said, status = built(CHECKOUT, tmp_path / "site")
    assert status == 0, said
    start = (tmp_path / "site" / "index.html").read_text()
    assert "docs/playbook.html" in start
    assert (tmp_path / "site" / "benchmarks" / "study" / "figures" / "ratings-dark.svg").is_file()
    assert "https://fonts." not in start


LINKS = {
    "[x](nowhere.md)": "'nowhere.md'",
    "[x](../README.md#nowhere)": "'#nowhere'",
    "[x](../tasks/nowhere.py)": "'../tasks/nowhere.py'",
    '<img src="nowhere.svg">': "nowhere.svg",
}


def test_links_that_lead_nowhere_are_named(tmp_path):
    (tmp_path / "docs").mkdir()
    for name in ("mkdocs.yml", "docs/site.py"):
        shutil.copy(CHECKOUT / name, tmp_path / name)
    (tmp_path / "mkdocs.yml").write_text((tmp_path / "mkdocs.yml").read_text().partition("nav:")[0])
    (tmp_path / "README.md").write_text("# Start\n\n[There](docs/page.md#part), [a file](mkdocs.yml)\n")
    page = tmp_path / "docs" / "page.md"
    page.write_text("# Page\n\n## Part\n\n```\n[no link](nowhere.md)\n```\n")
    for command in (["init", "--quiet"], ["add", "."]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    said, status = built(tmp_path, tmp_path / "site")
    assert status == 0, said
    page.write_text("\n\n".join(["# Page", "## Part", *LINKS]))
    said, status = built(tmp_path, tmp_path / "site")
    assert status == 1 and all(what in said for what in LINKS.values()), said
