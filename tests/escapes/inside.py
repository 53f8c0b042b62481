"""The program that runs in the jail: every attempt of the table."""

import sys

# Each enters its attempts in the table.
from tests.escapes import files, kernel, mounts, namespaces, processes, sharing  # noqa: F401
from tests.escapes.harness import main

main(sys.argv[1:])
