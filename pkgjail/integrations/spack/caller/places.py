"""The places that a command takes from its caller: the working directory, and the paths on its command line.

The jail shows them besides the manifest and Spack's own directories. It never shows whole a directory in
which software lies that nobody declared: those of the system, those that users share, and the user's home.
Each Spack command imports this module when it starts, so it imports little.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import NamedTuple

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SYSTEM = (
    "/bin", "/boot", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/libx32", "/proc", "/run", "/sbin", "/sys",
    "/usr",
)  # fmt: skip
"""The directories about which the manifest decides, with all that is in them: FHS 3.0, sections 3 and 4."""

LOCAL = "/usr/local"
"""The part of `SYSTEM` that a site fills itself: FHS 3.0, section 4.9."""

_ADDED = ("/opt", LOCAL)  # software that is no part of the distribution: FHS 3.0, section 3.13
_KERNELS = ("/dev", "/proc", "/sys")

SHARED = (
    "/", "/home", "/media", "/mnt", "/opt", "/root", "/srv", "/tmp", "/usr/local", "/var",  # noqa: S108
    "/var/cache", "/var/lib", "/var/spool", "/var/tmp",  # noqa: S108
)  # fmt: skip
"""The directories that belong to no single user or task: FHS 3.0, sections 3 and 5."""

TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108
"""Those of `SHARED` that a jail has of its own."""

# The directory in a home for programs and libraries that a user installs: file-hierarchy(7).
_OF_HOME = ".local"
# Options of Spack's commands whose value is a path, even if it has no slash.
_PATH_OPTIONS = frozenset(
    {
        "-d", "-f", "-o", "-p", "--cache-file", "--dir", "--directory", "--file", "--include-file",
        "--log-file",
        "--output", "--output-file", "--path", "--reproducer-dir", "--source-path", "--specfile-dir",
    }
)  # fmt: skip
# The variant by which a spec names its sources, and files beside which Spack looks for others.
_SOURCES = "dev_path="
_ENVIRONMENT_FILES = ("spack.lock", "spack.yaml")


# Files of the caller that git and ssh read, in the home; and variables that name such files: of git, of ssh's
# agent, and of certificates and credentials (openssl, curl, python-requests, Google's libraries).
_HOME_FILES = (".gitconfig", ".ssh/config", ".ssh/known_hosts")
_FILE_VARIABLES = (
    "GIT_CONFIG_GLOBAL", "SSH_AUTH_SOCK", "GIT_SSL_CAINFO", "SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE", "GOOGLE_APPLICATION_CREDENTIALS",
)  # fmt: skip


class Place(NamedTuple):
    """A path on the command line. `kind` is "directory", "file" (anything else) or "missing"."""

    path: str
    kind: str

    @property
    def source(self) -> str:
        """The path that the jail must show: this one, or the directory where Spack looks or writes."""
        path = self.path
        if self.kind == "missing":
            while not os.path.isdir(path):
                path = os.path.dirname(path)
        elif self.kind == "file" and os.path.basename(path) in _ENVIRONMENT_FILES:
            path = os.path.dirname(path)
        return path


def working_place() -> str:
    """Return the working directory if the jail shows it because the command is started there; else ""."""
    directory = _working_directory()
    return "" if why_not_whole(directory) else directory


def files_of_caller(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the files of the caller that git, ssh and the network's libraries read, if they exist."""
    home = os.path.expanduser("~")
    configuration = variables.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    found = [os.path.join(home, name) for name in _HOME_FILES]
    found += [os.path.join(configuration, "git"), *(variables.get(name, "") for name in _FILE_VARIABLES)]
    return tuple(dict.fromkeys(path for path in found if _is_file_of_host(path)))


def _is_file_of_host(path: str) -> bool:
    """Check whether there is such a file, and not one that each jail has of its own, such as /dev/null."""
    return os.path.isabs(path) and os.path.exists(path) and not _is_in(os.path.realpath(path), _KERNELS)


def named_places(words: Sequence[str], directory: str) -> tuple[Place, ...]:
    """Return the places that the arguments of a command name, without those below `directory`.

    A word is a path if it starts as one, or has a slash and exists. A word without a slash is one if it is a
    file, or the value of an option that takes a path. A missing path counts if it starts as one.

    Args:
        words: what follows the command's name.
        directory: the working directory, if the jail shows it; otherwise "".

    """
    here = directory or _working_directory()
    found: dict[str, Place] = {}
    for text, is_sure, follows_option in _candidates(words):
        path = _absolute(here, text)
        if path in found or _is_in(path, _KERNELS) or (directory and _is_in(path, (directory,))):
            continue
        kind = _kind(path)
        if kind == "missing":
            kept = is_sure and os.path.dirname(path) != "/"  # "/abc" is the hash of a spec
        elif "/" in text or text in {".", ".."}:
            kept = True
        else:
            kept = is_sure or follows_option or kind == "file"
        if kept and path != "/":
            found[path] = Place(path, kind)
    return tuple(found.values())


def _candidates(words: Sequence[str]) -> Iterator[tuple[str, bool, bool]]:
    """Yield each text that may be a path, whether it must be one, and whether it follows such an option.

    Some of the options with one letter are flags of other commands.
    """
    previous = ""
    for word in words:
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            if equals:
                yield value, _starts_as_path(value) or name in _PATH_OPTIONS, False
            elif not word.startswith("--") and _starts_as_path(word[2:]):
                yield word[2:], True, False
        elif _SOURCES in word:
            for part in word.split():
                if part.startswith(_SOURCES):
                    yield part[len(_SOURCES) :].strip("'\""), True, False
        elif word.startswith("file://"):
            yield word[len("file://") :], True, False
        elif word and "://" not in word:
            follows = previous in _PATH_OPTIONS
            yield word, _starts_as_path(word) or (follows and previous.startswith("--")), follows
        previous = word


def _absolute(directory: str, text: str) -> str:
    path = os.path.join(directory, os.path.expanduser(text))
    # "link/.." is where the link leads.
    return os.path.realpath(path) if ".." in path.split("/") else os.path.normpath(path)


def _working_directory() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was deleted
        return "/"


def _starts_as_path(text: str) -> bool:
    return text in {".", ".."} or text.startswith(("/", "./", "../", "~/"))


def _kind(path: str) -> str:
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return "missing"
    return "directory" if stat.S_ISDIR(mode) else "file"


def why_not_whole(path: str) -> str:
    """Return why the jail does not show a directory whole because a command names it, or ""."""
    real = os.path.realpath(path)
    if real == "/":
        return "it is the root directory"
    if top := next((top for top in (*_ADDED, *SYSTEM) if _is_in(real, (top,))), ""):
        return f"the manifest decides about {top}"
    homes = _homes()
    if real in homes:
        return "it is your home directory, and software in it would be visible that nobody declared"
    if has_home(real):
        return "your home directory is in it"
    if real in {os.path.join(home, _OF_HOME) for home in homes}:
        return "it is the directory of software that you installed"
    return "it is a directory that users share" if real in SHARED or _is_for_all(real) else ""


def has_home(path: str) -> bool:
    """Check whether a directory is the user's home or has it in it."""
    return any(_is_in(home, (os.path.realpath(path),)) for home in _homes())


def is_in_system(path: str) -> bool:
    """Check whether a path is in a directory about which the manifest decides."""
    return _is_in(os.path.realpath(path), (*_ADDED, *SYSTEM))


def is_setting(path: str) -> bool:
    """Check whether a path is among the system's settings or what its services make.

    There are no programs and no libraries. A file there can be shown alone. One in /usr would need a mount
    point in a large directory.
    """
    return _is_in(os.path.realpath(path), ("/etc", "/run"))


def _homes() -> set[str]:
    """Return the real paths of the user's homes: that of the variable, and that of passwd(5)."""
    import pwd

    found = [os.path.expanduser("~")]
    with contextlib.suppress(KeyError):
        found.append(pwd.getpwuid(os.geteuid()).pw_dir)
    return {os.path.realpath(path) for path in found if os.path.isabs(path)} - {"/"}


def _is_for_all(path: str) -> bool:
    """Check whether everybody may make names in a directory, each their own, as in /tmp."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return bool(mode & stat.S_ISVTX and mode & stat.S_IWOTH)


def _is_in(path: str, directories: Sequence[str]) -> bool:
    """Check whether a path is one of these, or below one."""
    return any((path + "/").startswith(directory.rstrip("/") + "/") for directory in directories)
