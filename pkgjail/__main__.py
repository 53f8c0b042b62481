"""`python -m pkgjail`."""

import sys


def main() -> int:
    """Enter a jail that was entered before, the short way; do everything else as `pkgjail.commands` does."""
    status = None
    if sys.argv[1:2] in (["run"], ["enter"]):
        from pkgjail.prepared import enter

        status = enter(sys.argv[1:])
    if status is None:
        from pkgjail.commands import main as command_line

        status = command_line()
    return status


if __name__ == "__main__":
    sys.exit(main())
