"""Compare two audits: what a command wants or uses now and did not before, and the other way round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.audit.wanted import used_files, wanted
from pkgjail.core.model import record

if TYPE_CHECKING:
    from pkgjail.audit.model import Audit, LookUp


@record
class AuditDifference:
    """What differs between two audits: look-ups of wanted paths, and packages of which files were used."""

    wanted_added: tuple[LookUp, ...]
    wanted_removed: tuple[LookUp, ...]
    used_added: tuple[str, ...]
    used_removed: tuple[str, ...]
    status: tuple[int, int]

    @property
    def same(self) -> bool:
        """Return whether nothing differs."""
        lists = (self.wanted_added, self.wanted_removed, self.used_added, self.used_removed)
        return not any(lists) and self.status[0] == self.status[1]


def compare_audits(old: Audit, new: Audit) -> AuditDifference:
    """Compare two audits by what was wanted and used. How often something was asked for does not count."""
    before, after = _wanted(old), _wanted(new)
    used_before, used_after = _used(old), _used(new)
    return AuditDifference(
        wanted_added=tuple(look_up for path, look_up in after.items() if path not in before),
        wanted_removed=tuple(look_up for path, look_up in before.items() if path not in after),
        used_added=tuple(sorted(used_after - used_before)),
        used_removed=tuple(sorted(used_before - used_after)),
        status=(old.status, new.status),
    )


def _wanted(audit: Audit) -> dict[bytes, LookUp]:
    return {look_up.path: look_up for package in wanted(audit) for look_up in package.look_ups}


def _used(audit: Audit) -> set[str]:
    return {owner for look_up in used_files(audit) for owner in look_up.owners}
