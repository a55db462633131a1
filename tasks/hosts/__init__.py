"""SSH hosts: a bare account becomes a GPU worker, and shards travel between hosts.

`hostkeys`     whom we trust: fingerprints pinned in a file of our own
`machine`      where scripts run: this machine or a host, with clear errors; `ssh`: one host by SSH
`facts`        what a host is: system, GPUs, disk, clock
`wheel`        FabRating's own package, built from this checkout
`environment`  base packages, Python environment, nanochat's environment
`service`      the worker as a service, and the tunnel back to the server
`provision`    the steps in order: checked, applied; `removal`: undone
`report`       what was found and installed, for people
`streams`      parallel rsync streams
`transfer`     artifacts from host to host and to the blob store, verified
`steps`        the Prefect tasks
"""
