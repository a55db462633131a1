"""Training an arm, by FabRating's own trainer (`builtin`) or by upstream nanochat (`nanochat`), behind one door.

`entry`     train, score again, evaluate on CORE; `steps`: the same as Prefect tasks
`inputs`    what a run reads, and whether it belongs together
`ranks`     the processes of a training: starting, following, ending them; `locks`: one attempt a run, one run a GPU
`results`   what either engine leaves behind; `trained`: opened again, to be used
`export`    a finished run for other programs: Hugging Face, nanochat, safetensors
"""
