"""What to do about a wanted package: the whitelist's line that brings it, and what a Spack recipe lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.audit.spack_names import SpackName
from pkgjail.audit.wanted import wanted
from pkgjail.core.model import record
from pkgjail.review.why import file_line, package_line

if TYPE_CHECKING:
    from pkgjail.audit.model import Audit, LookUp
    from pkgjail.audit.spack_names import SpackNames
    from pkgjail.audit.wanted import WantedPackage


@record
class Advice:
    """A package that a command wanted ("" for paths of no package), with its look-ups, most telling first.

    `lines` are the whitelist's lines that bring it into the jail: one for a package, one for each path of no
    package; none for what only a blacklist hides. `spack` is what a recipe probably lacks, if anything.
    """

    package: str
    look_ups: tuple[LookUp, ...]
    lines: tuple[str, ...]
    spack: SpackName


def advise(audit: Audit, names: SpackNames) -> tuple[Advice, ...]:
    """Return what to do about each wanted package, the most telling first."""
    return tuple(_advice(audit, each, names) for each in wanted(audit))


def _advice(audit: Audit, package: WantedPackage, names: SpackNames) -> Advice:
    hidden = [look_up for look_up in package.look_ups if not look_up.rule]
    paths = [look_up.path for look_up in hidden]
    if package.package and hidden:
        lines: tuple[str, ...] = (package_line(package.package, audit.family, audit.architecture),)
    else:
        lines = tuple(filter(None, map(file_line, paths)))
    return Advice(
        package=package.package,
        look_ups=package.look_ups,
        lines=lines,
        spack=names.depends_on(audit.family, package.package, paths)
        if package.package and hidden
        else SpackName(),
    )
