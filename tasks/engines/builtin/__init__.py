"""From packed rows to checkpoints and scores, in processes of its own, exact when resumed.

`run`          train and score from outside: start the ranks, follow them, say how it ended   -> runs/<run>/result
`launch`       one process per GPU of this host; `__main__`: what each of them runs; `attempt`: the order of its work
`job`          what a trainer is told, and the artifacts it reads
`setup`        sizes, guards, model, newest checkpoint; `guards`, `memory`, `locks`: what is refused before the first step
`loop`         steps, looks at the loss, checkpoints and evaluations when due
`rows`         packed rows in order, each once, for any number of ranks
`checkpoint`   whole or not there, written and mirrored beside training
`evaluation`   nats of each holdout document; `sample`: text; `result`, `score`, `metrics`: what is kept
`model`        the definition of what is computed; `compute` how: plain, or `fused` with `kernels`, `products`, `fp8`, `attention`
`optimizer`    Muon (`muon`) and AdamW (`adamw`) on stacked parameters (`storage`), shared out among ranks; `schedule`: rates
"""
