"""The notebooks run as they are, on a root with two real runs, and are kept without outputs."""

from pathlib import Path

import pytest

from infra.local.deploy import DEPLOYMENTS, PROJECT
from tests.trained import TinyRoot

NOTEBOOKS = sorted((DEPLOYMENTS / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tiny: TinyRoot, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient")
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in cells), "clear the outputs before you commit"
    monkeypatch.setenv("FABRATING_ROOT", str(tiny.folder))
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.delenv("MPLBACKEND", raising=False)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
    shown = "".join(output.get("text", "") for cell in cells for output in cell.outputs)
    assert "top - rand" in shown or "rand - top" in shown
    assert tiny.verdict in shown
    assert any("image/png" in output.get("data", {}) for cell in cells for output in cell.outputs)
