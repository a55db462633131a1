"""URLs, atomic artifacts and manifests: how bytes are kept, for every other room.

`urls`      what a URL names; `access`: the store behind it, with its credentials; `listing`: which files there are data
`blobs`     object stores behind one interface: list, ranged reads with ETag, upload, download; `hub`, `bulk`: two of a kind;
            `named`: several as one
`artifact`  a directory with a manifest: complete or not there, checksummed, resumable to the file
`root`      the one URL under which all artifacts of an installation lie; `shared`: a folder that several hosts share
`locks`     one process at a time; `machine`: what tells machines apart
"""
