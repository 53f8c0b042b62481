"""The allow-list of files that no pacman package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.backends.unowned import generated
from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.text import raw_path, text_path

GENERATED = (
    # Accounts and name resolution: the jail's own, with the user, root and nobody.
    *generated("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    *generated("glibc", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: what p11-kit extracts, and the links to it by name and by hash.
    *generated("ca-certificates-utils", "update-ca-trust", "/etc/ca-certificates/extracted/*"),
    *generated("ca-certificates-utils", "update-ca-trust", "/etc/ca-certificates/extracted/cadir/*"),
    *generated("ca-certificates-utils", "update-ca-trust", "/etc/ssl/certs/*", "/etc/ssl/certs/java/cacerts"),
    *generated(
        "ca-certificates-utils", "the administrator", "/etc/ca-certificates/trust-source/anchors/*"
    ),
    # Local time, and the locales that the administrator chose.
    *generated("tzdata", "timedatectl", "/etc/localtime"),
    *generated("glibc", "locale-gen", "/usr/lib/locale/locale-archive"),
    # Made by pacman's hooks.
    *generated("glib2", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *generated("glib2", "gio-querymodules", "/usr/lib/gio/modules/giomodule.cache"),
    *generated("gdk-pixbuf2", "gdk-pixbuf-query-loaders", "/usr/lib/gdk-pixbuf-2.0/*/loaders.cache"),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)  # fmt: skip

AT_ENTRY = frozenset(raw_path(rule.pattern) for rule in GENERATED if rule.at_entry)
"""Files that a jail makes itself although `filesystem` and `glibc` list them."""
