"""Read what a command line names as a manifest: a file, standard input, or something else by mistake."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pkgjail.cli.output import stream_fault
from pkgjail.core.errors import PkgjailError, UsageError
from pkgjail.core.text import shell_quote

if TYPE_CHECKING:
    from pkgjail.core.model import Manifest

STDIN = "-"


def named_file(word: str) -> str:
    """Return the path of a file that is read: `-` stands for standard input."""
    return "/dev/stdin" if word == STDIN else word


def read_manifest(name: str) -> Manifest:
    """Read the manifest that a command line names; `-` is standard input.

    Raises:
        ManifestError: it is none; if it is something else of pkgjail's, that is said.
        UsageError: it is the name of a whitelist, or an environment.
        OSError: it cannot be read.

    """
    from pkgjail.manifest import parse_stream
    from pkgjail.manifest import read_manifest as read

    if name == STDIN:
        try:
            return parse_stream(sys.stdin.fileno(), "standard input")
        except OSError as error:
            if error.errno == errno.EFBIG:  # the message is complete
                raise
            raise PkgjailError(f"cannot read standard input: {stream_fault(error)}; name a file") from None
    try:
        return read(name)
    except FileNotFoundError:
        if _is_shipped(name):
            raise UsageError(
                f"{name!r} is a whitelist, and a manifest is wanted here: make one with "
                f"'pkgjail resolve {shell_quote(name)} -o {shell_quote(name)}.manifest.jsonl'"
            ) from None
        raise
    except OSError as error:
        if error.errno == errno.EISDIR and _is_environment(name):
            raise UsageError(
                f"{name!r} is an environment, and a manifest is wanted here: run commands in it with "
                f"'pkgjail enter {shell_quote(name)} -- COMMAND', or name its manifest, "
                f"{shell_quote(os.path.join(name, 'manifest.jsonl'))}"
            ) from None
        raise


def is_manifest(name: str) -> bool:
    """Return whether a file is a manifest, by its beginning."""
    from pkgjail.core.recognise import MANIFEST_FILE
    from pkgjail.policy.lists import kind_at

    return os.path.isfile(name) and kind_at(Path(name)) == MANIFEST_FILE


def names_environment(name: str) -> bool:
    """Return whether a name is that of an environment's directory here, and not of a shipped list."""
    return os.path.isdir(name) and not _is_shipped(name) and _is_environment(name)


def _is_environment(name: str) -> bool:
    from pkgjail.environments.directory import is_environment

    return is_environment(os.fsencode(name))


def _is_shipped(name: str) -> bool:
    from pkgjail.policy.lists import WHITELIST

    return name in WHITELIST.shipped()
