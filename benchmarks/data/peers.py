"""The same job by four means: raw rated Parquet in a store -> composite score -> global order -> shards of 14,000 texts.

    python -m benchmarks.data.peers NAME URL OUT --share 1.0

script-N   what one would write in an afternoon: N threads download whole blobs with azure-storage-blob, drop the column,
           concatenate, sort, write; obstore-N: the same with the client that we use
polars     its streaming engine straight from the store; polars-M: held to M MiB
duckdb     blobs downloaded first, by 8 threads (its extension for Azure is not on PyPI for this version), then 2 GB of memory
ours       index, holdout, one pass over the text; the only one that also sets a holdout aside and removes it from the arm;
           ours@CHECKOUT (in `python -m benchmarks.data peers`): the same by the code of another checkout
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL

COLUMNS = (PEDAGOGICAL, FACTUAL, ENGAGEMENT)
DOCUMENTS = 14_000


Download = Callable[[str], bytes | memoryview]


def azure_sdk(url: str) -> tuple[list[str], Download]:
    """Names of the blobs, and how one is downloaded, by azure-storage-blob."""
    from azure.storage.blob import ContainerClient

    settings, container = os.environ["AZURE_STORAGE_CONNECTION_STRING"], url.removeprefix("az://")
    client = ContainerClient.from_connection_string(settings, container)
    names = [blob.name for blob in client.list_blobs() if blob.name.endswith(".parquet")]
    return names, lambda name: client.download_blob(name).readall()


def obstore(url: str) -> tuple[list[str], Download]:
    """The same by obstore."""
    from tasks.store.access import open_blobs

    source = open_blobs(url)
    blobs = {blob.name: blob for blob in source.list(suffix=".parquet")}
    return list(blobs), lambda name: source.read_range(blobs[name], 0, blobs[name].size)


def script(
    url: str, out: Path, share: float, threads: int, client: Callable[[str], tuple[list[str], Download]]
) -> None:
    """Everything in memory."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    names, download = client(url)

    def one(name: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(pa.py_buffer(download(name)))).drop_columns(["embedding"])

    with ThreadPoolExecutor(threads) as pool:
        table = pa.concat_tables(pool.map(one, names))
    values = [np.nan_to_num(table.column(name).to_numpy()) for name in COLUMNS]
    order = np.argsort(-sum(values) / 3, kind="stable")[: int(share * table.num_rows + 0.5)]
    texts = table.select(["text"]).take(pa.array(order))
    for number, start in enumerate(range(0, len(order), DOCUMENTS)):
        shard = texts.slice(start, DOCUMENTS)
        path = out / f"shard_{number:05d}.parquet"
        pq.write_table(shard, path, compression="zstd", compression_level=3, row_group_size=875, use_dictionary=False)


def polars(url: str, out: Path, share: float, budget: int | None) -> None:
    """One expression."""
    if budget is not None:
        os.environ["POLARS_OOC_MEMORY_BUDGET_MB"] = str(budget)
    import polars as pl

    from tasks.store.azure import azure_settings
    from tasks.store.urls import parse_url

    settings = azure_settings(parse_url(url))
    options = {
        "azure_storage_account_name": settings["account_name"],
        "azure_storage_account_key": settings["account_key"],
        "azure_storage_endpoint": settings["endpoint"],
        "allow_http": "true",
    }
    frame = pl.scan_parquet(f"{url}/*.parquet", storage_options=options)
    mean = sum(pl.col(name).fill_null(0) for name in COLUMNS) / 3
    frame = frame.select("text", score=mean).sort("score", descending=True, maintain_order=True)
    if share < 1:
        rows = pl.scan_parquet(f"{url}/*.parquet", storage_options=options).select(pl.len()).collect().item()
        frame = frame.head(int(share * rows + 0.5))
    frame.select("text").sink_parquet(
        pl.PartitionBy(out, max_rows_per_file=DOCUMENTS), compression="zstd", compression_level=3, row_group_size=875
    )


def duckdb(url: str, out: Path, share: float) -> None:
    """Downloaded, then one statement. It writes one file: it cannot cut at a number of rows and keep the order."""
    import duckdb as engine

    from tasks.store.access import open_blobs

    source = open_blobs(url)
    with tempfile.TemporaryDirectory(dir=out) as folder:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda b: source.download(b.name, Path(folder, b.name)), source.list(suffix=".parquet")))
        connection = engine.connect(config={"memory_limit": "2GB", "temp_directory": f"{folder}/spill"})
        mean = " + ".join(f"coalesce({name}, 0)" for name in COLUMNS)
        files = f"read_parquet('{folder}/*.parquet')"
        limit = ""
        if share < 1:
            limit = f"limit {int(share * connection.sql(f'select count(*) from {files}').fetchall()[0][0] + 0.5)}"
        connection.execute(
            f"copy (select text from {files} order by ({mean}) / 3 desc {limit}) to '{out}/all.parquet' "
            "(format parquet, compression zstd, compression_level 3, row_group_size 14000)"
        )


def ours(url: str, out: Path, share: float) -> None:
    """The three steps of a preparation."""
    from tasks.corpus.prepare import build_arms
    from tasks.spec import Arm, Pool
    from tasks.store.root import Root

    arm = Arm(select="all") if share == 1 else Arm(select="top", share=share)
    build_arms(Root(out), Pool(source=url), [arm])


def peer(name: str) -> Callable[[str, Path, float], None]:
    """The peer that a name stands for. Raises SystemExit for an unknown one."""
    kind, _, number = name.partition("-")
    if client := {"script": azure_sdk, "obstore": obstore}.get(kind):
        return lambda url, out, share: script(url, out, share, int(number or 8), client)
    if kind == "polars":
        return lambda url, out, share: polars(url, out, share, int(number) if number else None)
    if name in ("duckdb", "ours"):
        return {"duckdb": duckdb, "ours": ours}[name]
    raise SystemExit(f"There is no peer {name!r}: take script-8, obstore-8, polars, polars-600, duckdb or ours.")


def main() -> None:
    """Run one peer, to be measured from outside."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("url")
    parser.add_argument("out", type=Path)
    parser.add_argument("--share", type=float, default=1.0)
    arguments = parser.parse_args()
    run = peer(arguments.name)
    shutil.rmtree(arguments.out, ignore_errors=True)
    arguments.out.mkdir(parents=True)
    run(arguments.url, arguments.out, arguments.share)


if __name__ == "__main__":
    main()
