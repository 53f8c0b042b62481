"""Images: whole systems that are packages' and files' source, as the host is.

`importing` reads an image in any of the usual forms, `tree` unpacks its members and refuses what must not be
in one, `store` has the directory in which images are kept by their digests.
"""
