"""What is known of all documents before an arm takes some.

`sources`  the places that a pool is read from, and the names of their blobs; `columnar`: JSON lines among them, made Parquet
`index`    one row per document: tokens and the columns that arms ask for, never the text; `entries`: what is read of one blob; `partitions`: the columns in its name
`scores`   weighted means, expressions and filters over its columns (`column`, `evaluate`)
`holdout`  documents set aside for evaluation; `sample`: text for the tokenizer
`survey`   what a store holds, before anything is prepared
"""
