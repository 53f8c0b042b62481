"""The allow-list of files that no rpm package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.backends.unowned import generated
from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.text import raw_path, text_path

# Most files that programs make at an installation are in the packages' lists as %ghost. On Fedora, RHEL
# or openSUSE, these are not, or a jail makes them differently.
GENERATED = (
    # Accounts and name resolution: the jail's own, with the user, root and nobody.
    *generated("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    *generated("glibc", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: the bundles that p11-kit extracts, in RHEL's and Fedora's place and in openSUSE's.
    *generated("ca-certificates", "update-ca-trust", "/etc/pki/ca-trust/extracted/*/*"),
    *generated("ca-certificates", "update-ca-trust", "/etc/pki/ca-trust/extracted/*/*/*"),
    *generated("ca-certificates", "the administrator", "/etc/pki/ca-trust/source/anchors/*"),
    *generated("ca-certificates", "update-ca-certificates", "/var/lib/ca-certificates/*"),
    *generated("ca-certificates", "update-ca-certificates", "/var/lib/ca-certificates/*/*"),
    *generated("ca-certificates", "the administrator", "/etc/pki/trust/anchors/*"),
    # Local time, and the locales that the administrator chose.
    *generated("tzdata", "timedatectl", "/etc/localtime"),
    *generated("timezone", "timedatectl", "/etc/localtime"),
    *generated("glibc-common", "build-locale-archive", "/usr/lib/locale/locale-archive"),
    *generated("glibc-locale-base", "localedef", "/usr/lib/locale/locale-archive"),
    *generated("glibc", "iconvconfig", "/usr/lib64/gconv/gconv-modules.cache"),
    *generated("glib2", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)

AT_ENTRY = frozenset(raw_path(rule.pattern) for rule in GENERATED if rule.at_entry)
"""Files that a jail makes itself although `setup` and `glibc` list them."""
