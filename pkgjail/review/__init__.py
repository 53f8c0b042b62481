"""What a reviewer asks of manifests: why something is in, and what differs between two.

Each module is pure functions from manifests to frozen records; words and colours are the commands'.
"""
