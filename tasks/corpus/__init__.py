"""The data path: rated documents in blob storage -> one pool -> the text of an arm. See `prepare` for the steps.

`parquet`    footers, byte ranges of columns, decoding from fetched ranges
`fetch`      requests in flight ahead of the decoders
`index`      one row a document: score and tokens, never the text; `column`: one of these numbers on the disk
`holdout`    documents set aside; `sample`: text for the tokenizer
`selection`  which documents an arm takes, in which order
`plan`       what that costs, before any text moves; `estimate`: before there is an index
`scatter`    the text once, into sorted runs; `emit`: runs into shards; `shards`: their format
`pages`      texts out of Parquet pages (`thrift`), `views`: where they lie, `writer`: into a page again
`texts`      checked, and recognized by their content
`scratch`    intermediate files; `disk`: how they are written; `heap`: memory given back; `workers`: who does the work
`survey`     what lies in a store
`steps`      the Prefect tasks

Several machines: run the flow with prefect-dask's DaskTaskRunner and a root that all machines reach, for example

    from prefect_dask import DaskTaskRunner
    prepare.with_options(task_runner=DaskTaskRunner(address="tcp://scheduler:8786"))(arm=..., root="az://results/root")

with `dask worker tcp://scheduler:8786 --nworkers N --nthreads 1` on each, the same version of this package, and the store's
credentials in each worker's environment. Workers leave what they make for each other under the root; the process that runs
the flow gathers the shards.
"""

import os

# NumPy's BLAS starts a thread for every core, which spin: 2 s of CPU on 16 cores, and nothing here multiplies large matrices
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from tasks.corpus.heap import limit_arenas  # behind that line, as it imports NumPy

limit_arenas()
