"""`python -m pkgjail`."""

import os
import sys


def main() -> int:
    """Run the command line; return the exit status."""
    try:
        from pkgjail.cli.streams import open_streams

        open_streams()
        return _main()
    except KeyboardInterrupt as interrupt:
        import signal

        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one would end this with a traceback
        print(f"pkgjail: {str(interrupt) or 'interrupted'}", file=sys.stderr)
        return 130


def _main() -> int:
    """Replay an entry if one was prepared; leave everything else to `pkgjail.cli`."""
    status = None
    if sys.argv[1:2] in (["run"], ["enter"]):
        from pkgjail.jails.replay import replay

        try:
            status = replay(sys.argv[1:], _report_changes, _warn)
        except OSError as error:  # no process can be created, for example
            from pkgjail.cli.main import report_failure

            return report_failure(error, sys.argv[1:])
    if status is None:
        from pkgjail.cli.main import main as command_line

        status = command_line()
    return status


def _report_changes(status: int) -> int:
    """Report host files that changed while the command ran; return the exit status."""
    from pkgjail.cli.main import report_changes

    return report_changes(sys.argv[1:], status)


def _warn(message: str) -> None:
    from pkgjail.cli.console import ConsoleReporter

    ConsoleReporter(as_json="--json" in sys.argv[: sys.argv.index("--")]).warn(message)


def _import_nothing_from_here() -> None:
    """Remove the current directory, which `python -m` puts first, from `sys.path`.

    A jail may have left modules there that would run outside. It stays if pkgjail itself is there.
    """
    own = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    first = sys.path[0]
    if first != own and (not first or os.path.realpath(first) == os.path.realpath(".")):
        del sys.path[0]


if __name__ == "__main__":
    _import_nothing_from_here()
    sys.exit(main())
