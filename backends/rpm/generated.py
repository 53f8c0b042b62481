"""The allow-list of files that no rpm package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.model import Generated, raw_path, text_path


def _made(package: str, made_by: str, *patterns: str, at_entry: bool = False) -> tuple[Generated, ...]:
    return tuple(
        Generated(pattern=pattern, package=package, made_by=made_by, at_entry=at_entry)
        for pattern in patterns
    )


# Most of what programs make at an installation stands in the packages' lists as %ghost. These do not
# on Fedora, RHEL or openSUSE, or are of another making in a jail.
GENERATED = (
    # Who one is and how names resolve: a jail's own, with the user, root and nobody.
    *_made("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    *_made("glibc", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: the bundles that p11-kit extracts, in RHEL's and Fedora's place and in openSUSE's.
    *_made("ca-certificates", "update-ca-trust", "/etc/pki/ca-trust/extracted/*/*"),
    *_made("ca-certificates", "update-ca-trust", "/etc/pki/ca-trust/extracted/*/*/*"),
    *_made("ca-certificates", "the administrator", "/etc/pki/ca-trust/source/anchors/*"),
    *_made("ca-certificates", "update-ca-certificates", "/var/lib/ca-certificates/*"),
    *_made("ca-certificates", "update-ca-certificates", "/var/lib/ca-certificates/*/*"),
    *_made("ca-certificates", "the administrator", "/etc/pki/trust/anchors/*"),
    # Local time, and the locales that the administrator chose.
    *_made("tzdata", "timedatectl", "/etc/localtime"),
    *_made("timezone", "timedatectl", "/etc/localtime"),
    *_made("glibc-common", "build-locale-archive", "/usr/lib/locale/locale-archive"),
    *_made("glibc-locale-base", "localedef", "/usr/lib/locale/locale-archive"),
    *_made("glibc", "iconvconfig", "/usr/lib64/gconv/gconv-modules.cache"),
    *_made("glib2", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)

AT_ENTRY = frozenset(raw_path(rule.pattern) for rule in GENERATED if rule.at_entry)
"""What a jail makes of its own, though `setup` and `glibc` list it: it is not the host's there."""
