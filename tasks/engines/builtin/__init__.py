"""From packed rows to checkpoints and scores, in processes of its own, exact when resumed.

`engine`       from outside: start the ranks, follow them, say how it ended
`__main__`     what each rank runs; `attempt`: the order of its work, from a job to a result
`setup`        shape of the run, model, newest checkpoint; `guards`, `memory`: what is refused before the first step
`loop`         steps, reports of the loss, checkpoints and evaluations when due
`rows`         packed rows in order, each once, for any number of ranks
`checkpoint`   complete or absent, written and mirrored beside training
`evaluation`   nats of each holdout document; `answering`: questions; `sample`: text, `writing`: text after a prompt; `score`: a checkpoint again, without training
`model`        the definition of what is computed; `compute` how: plain, or `fused` with `kernels`, `products`, `fp8`, `attention`
`optimizer`    Muon (`muon`) and AdamW (`adamw`) on stacked parameters (`storage`), shared out among ranks; `schedule`: rates
"""
