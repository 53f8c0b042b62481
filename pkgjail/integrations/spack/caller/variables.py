"""The caller's environment variables that Spack's commands get in the jail.

docs/spack.md lists them. There are two kinds. Spack's configuration depends on some, so what the jail shows
does too. The others are only passed on, and each command takes those of its own caller.
Each Spack command imports this module when it starts, so it imports little.
"""

from __future__ import annotations

from pkgjail.jails.variables import OWN, choose_variables

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What Spack's configuration depends on, besides its own variables: the home that `~` means, where temporary
# files are (tempfile.gettempdir in Python's library), and the files of certificates.
_OF_SPACK = "SPACK_"
_CONFIGURING = frozenset((
    "HOME", "TMPDIR", "TEMP", "TMP", "XDG_CONFIG_HOME", "SSL_CERT_FILE", "SSL_CERT_DIR",
    "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "GIT_CONFIG_GLOBAL", "SSH_AUTH_SOCK",
    "GOOGLE_APPLICATION_CREDENTIALS",
))  # fmt: skip
# What shells have of Spack's, which changes with each `spack load`.
_OF_SHELLS = ("SPACK_LOADED_HASHES", "SPACK_OLD_PROMPT")
_PASSED = frozenset((
    # how the network is reached
    "http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy",
    "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY",
    # sources and mirrors
    "SSH_ASKPASS", "GPG_TTY",
    # the terminal and the user
    "COLORTERM", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "COLIFY_SIZE", "EDITOR",
    "VISUAL",
    # continuous integration
    "CI", "SOURCE_DATE_EPOCH",
    *_OF_SHELLS,
))  # fmt: skip
# Those of git, of stores of objects (mirrors), of continuous integration (GitLab's and GitHub's), and of
# batch systems: Slurm, PBS, LSF, Flux, Grid Engine, Cobalt.
_PASSED_PREFIXES = (
    "GIT_", "AWS_", "CI_", "GITLAB_", "GITHUB_", "SLURM_", "PBS_", "LSB_", "FLUX_", "SGE_", "COBALT_",
)  # fmt: skip
# The commands that print code for the caller's shell: changed variables, with what the shell has in them.
_FOR_SHELLS = {"load": (), "unload": (), "env": ("activate", "deactivate")}
# Variables that would change the programs inside, and those that the jail has of its own.
_NEVER = (
    "LD_PRELOAD", "LD_AUDIT", "GLIBC_TUNABLES", "PYTHONHOME", "PYTHONSTARTUP", "LOGNAME", "USER", "SHELL",
    "PWD", "OLDPWD", "_",
)  # fmt: skip


def configuring_variables(variables: Mapping[str, str], options: Sequence[str] = ()) -> dict[str, str]:
    """Return the variables that affect Spack's configuration or what the jail shows, sorted by name.

    The account's name is one: the path of Spack's stage may contain it. Others are those to which `options`
    refer, as in `-c config:build_stage:$SCRATCH`.
    """
    named = {_leading_name(part) for option in options for part in option.split("$")[1:]} - {*OWN}
    found = {name: value for name, value in variables.items() if _is_configuring(name) or name in named}
    found["USER"] = variables.get("USER", "")
    return dict(sorted(found.items()))


def given_variables(
    variables: Mapping[str, str], words: Sequence[str], command: str | None, arguments: Sequence[str]
) -> dict[str, str]:
    """Return the variables that are passed on and that nothing in the jail depends on.

    Args:
        variables: the caller's.
        words: the further names and patterns of the active environment, as `choose_variables` takes them.
        command: Spack's command.
        arguments: what follows it.

    """
    if is_for_shells(command, arguments):
        names: Iterable[str] = (name for name in variables if name not in _NEVER)
    else:
        names = (name for name in variables if name in _PASSED or name.startswith(_PASSED_PREFIXES))
    found = {name: variables[name] for name in names if not _is_configuring(name)}
    return {**found, **choose_variables(words, variables).values}


def is_for_shells(command: str | None, arguments: Sequence[str]) -> bool:
    """Check whether a command prints code for the caller's shell."""
    if command not in _FOR_SHELLS:
        return False
    second = _FOR_SHELLS[command]
    return not second or any(word in second for word in arguments[:1])


def _leading_name(text: str) -> str:
    """Return the name of a variable with which a text begins, after `$`: NAME or {NAME}."""
    text = text.lstrip("{")
    end = next(
        (place for place, letter in enumerate(text) if not (letter.isalnum() or letter == "_")), len(text)
    )
    return text[:end]


def _is_configuring(name: str) -> bool:
    return (name.startswith(_OF_SPACK) and name not in _OF_SHELLS) or name in _CONFIGURING
