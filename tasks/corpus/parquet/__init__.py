"""Parquet by byte ranges.

`footer`   the schema of a file, and where its column chunks lie
`ranges`   byte ranges, and requests that run ahead of the decoders
`reading`  row groups decoded from fetched ranges; `pages`: their text, left in its pages (`thrift`: the headers)
`views`    texts reordered without copying; `texts`: texts recognized by their content
`shards`   the layout of nanochat's shards
"""
