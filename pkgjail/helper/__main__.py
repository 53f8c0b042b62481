"""`pkgjaild`, and `python -m pkgjail.helper`: the service, for root to start."""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig

# What a current directory has must not be imported; `python -m` puts it first.
if sys.path and sys.path[0] in {"", os.getcwd()} and not os.path.isdir(os.path.join(sys.path[0], "pkgjail")):
    del sys.path[0]

from pkgjail.core.errors import PkgjailError, os_error_text
from pkgjail.core.text import printable_lines, shell_quote
from pkgjail.helper.errors import ServiceError
from pkgjail.helper.places import STATE
from pkgjail.helper.policy import EXAMPLE, POLICY, read_policy
from pkgjail.helper.protocol import SOCKET
from pkgjail.storage.locations import replaceable_part

_DESCRIPTION = """\
Make jails for users on hosts where they cannot make user namespaces. Root starts this service; users ask
it with 'pkgjail run --stage helper'. It makes each jail with the rights of the user who asks, as far as
/etc/pkgjaild.toml allows.
"""
_UNITS = ("socket", "service")


def main() -> int:
    """Run the command line; return the exit status: 0, or 1 if the service cannot start."""
    arguments = _parser().parse_args()
    try:
        return _run(arguments)
    except PkgjailError as error:
        print(f"pkgjaild: {printable_lines(str(error))}", file=sys.stderr)
    except OSError as error:
        print(f"pkgjaild: cannot start: {os_error_text(error)}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="pkgjaild", description=_DESCRIPTION)
    default = "(default: %(default)s)"
    parser.add_argument("--policy", default=POLICY, metavar="FILE", help="the policy (default: %(default)s)")
    parser.add_argument(
        "--socket", default=SOCKET, metavar="PATH", help="listen there (default: %(default)s)"
    )
    parser.add_argument("--state", default=STATE, metavar="DIR", help=f"the users' caches of jails {default}")
    parser.add_argument("--check", action="store_true", help="check policy and installation, and end")
    parser.add_argument("--print-unit", choices=_UNITS, help="print a unit for systemd, and end")
    parser.add_argument("--print-policy", action="store_true", help="print an example policy, and end")
    return parser


def _run(arguments: argparse.Namespace) -> int:
    if arguments.print_policy:
        print(EXAMPLE, end="")
        return 0
    if arguments.print_unit:
        print(unit(arguments.print_unit), end="")
        return 0
    if not os.path.lexists(arguments.policy):
        raise ServiceError(
            f"cannot start without a policy: there is no {arguments.policy}; write one: "
            f"pkgjaild --print-policy > {arguments.policy}"
        )
    refuse_replaceable(arguments.policy)
    policy = read_policy(arguments.policy)
    if arguments.check:
        print(f"{arguments.policy} is valid, and nobody but root can change this installation")
        return 0
    _open_standard()
    from pkgjail.helper.server import serve

    serve(policy, arguments.socket, arguments.state)
    return 0


def unit(kind: str) -> str:
    """Return a unit file for systemd, which starts this installation."""
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "assets", f"pkgjaild.{kind}")
    with open(path, encoding="utf-8") as file:
        return file.read().replace("@COMMAND@", f"{shell_quote(sys.executable)} -m pkgjail.helper")


def refuse_replaceable(policy: str) -> None:
    """Refuse to run code, or to read a policy, that others than root can replace.

    Raises:
        ServiceError: names what they can replace.

    """
    code = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    library = sysconfig.get_path("stdlib")
    for path in (policy, code, library, sys.executable, *filter(os.path.isdir, sys.path)):
        if part := replaceable_part(os.path.realpath(path)):
            raise ServiceError(
                f"cannot start: others than root can replace {part}, and with it {path}; install pkgjail in "
                "a directory of root's"
            )
    for directory, _, names in os.walk(code):
        for path in (directory, *(os.path.join(directory, name) for name in names)):
            if part := replaceable_part(os.path.realpath(path)):
                raise ServiceError(f"cannot start: others than root can replace {part}")


def _open_standard() -> None:
    """Open /dev/null in the place of each closed standard descriptor: a client's must not get its number."""
    while (opened := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004
        pass
    os.close(opened)


if __name__ == "__main__":
    sys.exit(main())
