"""The allow-list of files that no pacman package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.model import Generated, raw_path, text_path


def _made(package: str, made_by: str, *patterns: str, at_entry: bool = False) -> tuple[Generated, ...]:
    return tuple(
        Generated(pattern=pattern, package=package, made_by=made_by, at_entry=at_entry)
        for pattern in patterns
    )


GENERATED = (
    # Who one is and how names resolve: a jail's own, with the user, root and nobody.
    *_made("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    *_made("glibc", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: what p11-kit extracts, and the links to it by name and by hash.
    *_made("ca-certificates-utils", "update-ca-trust", "/etc/ca-certificates/extracted/*"),
    *_made("ca-certificates-utils", "update-ca-trust", "/etc/ca-certificates/extracted/cadir/*"),
    *_made("ca-certificates-utils", "update-ca-trust", "/etc/ssl/certs/*", "/etc/ssl/certs/java/cacerts"),
    *_made(
        "ca-certificates-utils", "the administrator", "/etc/ca-certificates/trust-source/anchors/*"
    ),
    # Local time, and the locales that the administrator chose.
    *_made("tzdata", "timedatectl", "/etc/localtime"),
    *_made("glibc", "locale-gen", "/usr/lib/locale/locale-archive"),
    # Made by pacman's hooks.
    *_made("glib2", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("glib2", "gio-querymodules", "/usr/lib/gio/modules/giomodule.cache"),
    *_made("gdk-pixbuf2", "gdk-pixbuf-query-loaders", "/usr/lib/gdk-pixbuf-2.0/*/loaders.cache"),
    *_made("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)  # fmt: skip

AT_ENTRY = frozenset(raw_path(rule.pattern) for rule in GENERATED if rule.at_entry)
"""What a jail makes of its own, though `filesystem` and `glibc` list it: it is not the host's there."""
