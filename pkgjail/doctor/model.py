"""The records of an examination of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pkgjail.core.model import record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.jails.causes import Kind
    from pkgjail.stages.model import Property

COLUMNS: Mapping[Property, str] = {
    "exact": "names hidden",
    "content": "content refused",
    "read-only": "writes refused",
    "processes": "processes apart",
    "network": "network apart",
    "stays": "survives host changes",
}
"""The promises that tell stages apart, in a few words each; `pkgjail.stages.model` says what they mean."""

Who = Literal["administrator", "starter", "user"]
"""Who can apply a remedy: root of the host, whoever starts the container or service around, or the user."""


@record
class Remedy:
    """Something that can be done: what it does, who can do it, and lines to paste."""

    what: str
    who: Who
    lines: tuple[str, ...] = ()


@record
class Finding:
    """Something wrong with a directory or a part of the host, and what to do about it.

    It is `serious` if jails fail because of it.
    """

    what: str
    remedies: tuple[Remedy, ...] = ()
    serious: bool = True


@record
class StageReport:
    """One stage on this host.

    `promises` has those of `COLUMNS`. `obstacle` is why it does not work here, or ""; `cause` is its kind if
    the kernel's settings tell. `excluded` is the place of the settings that exclude it, or "".
    """

    name: str
    summary: str
    promises: Mapping[Property, bool]
    obstacle: str
    cause: Kind | Literal[""] = ""
    excluded: str = ""
    remedies: tuple[Remedy, ...] = ()

    @property
    def works(self) -> bool:
        """Return whether it works here, and settings allow it."""
        return not self.why_not

    @property
    def why_not(self) -> str:
        """Return why it cannot be used here, or ""."""
        return f"{self.excluded} does not allow it" if self.excluded else self.obstacle


@record
class DefaultReport:
    """The stage that commands run in if nobody names one.

    `stage` is the one that settings choose, from `origin` ("" if nobody chose it), and `taken` the one that
    this is here: another one for "auto", and "" if none works. `fault` is what is wrong with the settings.
    """

    stage: str
    origin: str
    taken: str
    fault: str = ""


@record
class KernelReport:
    """The kernel, and how this process may use it.

    `landlock` is the version of Landlock's interface, 0 without it. `settings` are those that matter here.
    `strategies` has for each way to show a directory why `/usr` cannot be shown so, or "". `container` is the
    engine around this process as far as it can be told, and `profile` that of a security module.
    """

    release: str
    machine: str
    landlock: int
    settings: Mapping[str, str]
    strategies: Mapping[str, str]
    container: str
    filtered: bool
    profile: str
    covered: tuple[str, ...]
    chrooted: bool
    findings: tuple[Finding, ...] = ()


@record
class DirectoryReport:
    """A directory that pkgjail writes to. Sizes are in bytes; `names` is how many more files fit.

    `filesystem` is the type that mount(8) shows, and `attributes` whether files can have user attributes, as
    the layers of overlays need; None if that was not tried.
    """

    role: str
    path: str
    exists: bool
    filesystem: str
    free: int
    names: int
    noexec: bool
    attributes: bool | None
    findings: tuple[Finding, ...] = ()


@record
class SoftwareReport:
    """A program or a database: what it is and where, "" if there is none, and what is missing or wrong."""

    role: str
    found: str
    findings: tuple[Finding, ...] = ()


@record
class HostReport:
    """All that was found. `user` is who asked: the number, with the name if there is one."""

    system: str
    user: str
    default: DefaultReport
    stages: tuple[StageReport, ...]
    kernel: KernelReport
    directories: tuple[DirectoryReport, ...]
    software: tuple[SoftwareReport, ...]

    @property
    def by_root(self) -> bool:
        """Return whether root asked, who can do more here than other users."""
        return self.user in {"0", "root (0)"}

    @property
    def works(self) -> bool:
        """Return whether the default stage works here, and so do the directories that its jails need."""
        spoilt = any(finding.serious for each in self.directories for finding in each.findings)
        return bool(self.default.taken) and not spoilt
