"""URLs, atomic artifacts and manifests: how bytes are kept, for every other room.

`blobs`     object stores behind one interface (file, az, hf): list, ranged reads with ETag, upload, download
`artifact`  a directory with a manifest: complete or not there, checksummed, resumable to the file
`root`      the one URL under which all artifacts of an installation lie
"""
