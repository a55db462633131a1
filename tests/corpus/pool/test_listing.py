"""Which blobs below a URL are files of the pool."""

import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from azure.storage.blob import BlobServiceClient

from tasks.store.access import open_blobs
from tests.corpus.corpora import arm_and_holdout, rated_texts


def write(folder: Path, name: str, tag: str = "document") -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rated_texts(100, tag), path)


def upload(container: str, folder: Path) -> None:
    store = open_blobs(f"az://{container}")
    for path in (path for path in folder.rglob("*.parquet") if path.is_file()):
        store.upload(path, path.relative_to(folder).as_posix())


@pytest.mark.parametrize("where", ["folder", "container"])
def test_what_a_killed_job_left_uncommitted_is_no_part_of_the_pool(
    where: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    write(tmp_path / "raw", "web/part-00000.parquet")
    write(tmp_path / "raw", "web/_temporary/0/_temporary/attempt_0001_m_000000_7/part-00000.parquet", "uncommitted")
    url = (tmp_path / "raw/web").as_uri()
    if where == "container":
        container = request.getfixturevalue("azure")
        upload(container, tmp_path / "raw")
        url = f"az://{container}/web"
    trained, held = arm_and_holdout(tmp_path, url)
    assert [text for text in trained + held if text.startswith("uncommitted")] == []
    assert len(trained + held) == 100


@pytest.mark.parametrize("below", ["", "/raw"])
def test_a_blob_that_marks_a_folder_is_no_file(below: str, tmp_path: Path, azure: str) -> None:
    for number in range(2):
        write(tmp_path, f"raw/web.parquet/part-{number}.parquet", f"file {number}")
    upload(azure, tmp_path)
    connection = os.environ["AZURE_STORAGE_CONNECTION_STRING"]
    container = BlobServiceClient.from_connection_string(connection).get_container_client(azure)
    for marker in ("raw", "raw/web.parquet"):
        container.upload_blob(marker, b"", metadata={"hdi_isfolder": "true"})
    trained, held = arm_and_holdout(tmp_path, f"az://{azure}{below}")
    assert len(trained + held) == 200
