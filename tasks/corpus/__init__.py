"""The data path: rated documents in blob storage become one pool, and arms of its text. `prepare` has the sequence of steps.

Layers, each of which knows only those below it:

`prepare`, `steps`  what a caller runs: plain functions, and Prefect tasks around them; `division` columns of a holdout
`arm`               which documents an arm takes, what that costs, its text as shards
`pool`              the index of all documents, the holdout, the tokenizer's sample, the survey of a store
`parquet`           what is read of a Parquet file by byte ranges
`lines`             JSON lines as Parquet
`workers`, `scratch`, `disk`, `heap`, `left_out`  processes, intermediate files, writes, memory, files that cannot be used

Several machines: run the flow with prefect-dask's DaskTaskRunner and a root that all machines reach, for example

    from prefect_dask import DaskTaskRunner
    prepare.with_options(task_runner=DaskTaskRunner(address="tcp://scheduler:8786"))(arm=..., root="az://results/root")

with `dask worker tcp://scheduler:8786 --nworkers N --nthreads 1` on each machine, the same version of this package, and the
credentials of the store in each worker's environment. Workers leave what they make for each other under the root; the process
that runs the flow gathers the shards.
"""
