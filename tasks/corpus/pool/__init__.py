"""What is known of all documents before an arm takes some.

`sources`  the places that a pool is read from, and the names of their blobs
`index`    one row per document: score and tokens, never the text; `column`: one such number on the disk
`scores`   the composite of the score columns, and its deciles
`holdout`  documents set aside for evaluation; `sample`: text for the tokenizer
`survey`   what a store holds, before anything is prepared
"""
