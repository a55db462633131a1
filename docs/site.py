"""What mkdocs builds the site from: every page of the repository at its own path, and the files that pages link to.

So a link means the same on the site as in a checkout, and a build with --strict finds each one that leads nowhere.
"""

import logging
import re
import subprocess
from pathlib import Path
from urllib.parse import unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

LOG = logging.getLogger("mkdocs.hooks.site")
LINK = re.compile(r"""\]\(([^)\s#]+)|(?:src|srcset)="([^"#]+)\"""")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's own files, the pages, and what those link to. A picture in HTML that is not there is a warning, as mkdocs' are."""
    root = Path(config.config_file_path).parent.resolve()
    pages = pages_of(root)
    linked = {target for page in pages for target in links_of(root, page)}
    here = {file.src_uri for file in files.documentation_pages()} | {"site.py"}
    kept = [file for file in files if file.src_uri not in here]
    kept += [File.generated(config, uri, abs_src_path=str(root / uri)) for uri in sorted({*pages, *linked})]
    return Files(kept)


def pages_of(root: Path) -> list[str]:
    """Every Markdown file that git knows, by its path below the checkout: an exported model lies beside them with a card of its own."""
    command = ["git", "ls-files", "*.md"]
    named = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.splitlines()
    return sorted(name for name in named if (root / name).is_file())


def links_of(root: Path, page: str) -> set[str]:
    """The files of the checkout that a page links to, by their paths below it."""
    found = set()
    for markdown, html in LINK.findall(FENCE.sub("", (root / page).read_text())):
        target = (root / page).parent / unquote(markdown or html)
        if ":" in (markdown or html) or not target.resolve().is_relative_to(root):
            continue
        if target.is_file():
            found.add(target.resolve().relative_to(root).as_posix())
        elif html:
            LOG.warning("%s shows %s, which is not there", page, html)
    return found
