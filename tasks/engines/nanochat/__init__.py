"""Upstream nanochat, patched in memory and run in its own environment.

`engine`       one attempt: prepare, follow, score; `plan`: what it comes to; `launch`: what the ranks are started with
`overlay`      what they run: standalone, hooks upstream; `check`: whether a checkout is what it hooks; `contract`: upstream's names
`environment`  its checkout, interpreter and GPUs
`logs`         its output as signs and metrics; `watch`: hangs
`checkpoints`  its own; `weights`, `tokenizer`, `exchange`: into ours and back; `scoring`: whose scores count
`core`         CORE by its own evaluation
"""
