"""From text to token rows: the tokenizer of a pool, its holdout in tokens, and the packed rows of an arm.

`tokenizer`   what a tokenizer is: pre-split pattern, special tokens, the loaded object
`train`       byte-level BPE on the pool's sample           -> pools/<pool>/tokenizer
`encode`      the fastest encoder that gives the same ids
`evaluation`  the holdout in tokens                         -> pools/<pool>/evaluation
`outside`     texts from elsewhere in tokens                -> pools/<pool>/outside/<texts>
`questions`   questions in tokens; `asked` reads them       -> pools/<pool>/questions/<set>
`packer`      best-fit packing of documents into rows
`pack`        the training rows of an arm                   -> arms/<arm>/packed/<sequence length>-<packing>
"""
