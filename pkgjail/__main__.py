"""`python -m pkgjail`."""

import os
import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    try:
        from pkgjail.cli.streams import open_streams

        open_streams()
        return _main()
    except KeyboardInterrupt as interrupt:
        print(f"pkgjail: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


def _main() -> int:
    """Enter a jail that was entered before, the short way; do everything else as `pkgjail.cli` does."""
    status = None
    if sys.argv[1:2] in (["run"], ["enter"]):
        from pkgjail.jail.replay import enter

        try:
            status = enter(sys.argv[1:], _report_changes, _warn)
        except OSError as error:  # no process to be had, say
            from pkgjail.cli.main import tell_failure

            return tell_failure(error, sys.argv[1:])
    if status is None:
        from pkgjail.cli.main import main as command_line

        status = command_line()
    return status


def _report_changes(status: int) -> int:
    """Tell what changed on the host while the command ran that ended with `status`; the exit status."""
    from pkgjail.cli.main import report_changes

    return report_changes(sys.argv[1:], status)


def _warn(message: str) -> None:
    from pkgjail.cli.console import ConsoleReporter

    ConsoleReporter(as_json="--json" in sys.argv[: sys.argv.index("--")]).warn(message)


def _import_nothing_from_here() -> None:
    """Take the directory that `python -m` begins to look for modules in, the current one, off `sys.path`.

    A jail may have left modules there, which would run outside. Where pkgjail itself is there it stays.
    """
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = sys.path[0]
    if first != own and (not first or os.path.realpath(first) == os.path.realpath(".")):
        del sys.path[0]


if __name__ == "__main__":
    _import_nothing_from_here()
    sys.exit(main())
