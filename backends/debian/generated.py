"""The allow-list of files that no package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.model import Generated, text_path


def _made(package: str, made_by: str, *patterns: str, at_entry: bool = False) -> tuple[Generated, ...]:
    return tuple(
        Generated(pattern=pattern, package=package, made_by=made_by, at_entry=at_entry)
        for pattern in patterns
    )


# Found by comparing a Debian 12 build host with all its file lists. Left out, though no package
# owns them, since no build needs them: caches of icons and manual pages, accounts' shadow files,
# machine-id, mtab, init and PAM links, and what a site adds by itself (ld.so.conf.d, gitconfig,
# pip.conf): a whitelist names such paths.
GENERATED = (
    # Who one is and how names resolve: a jail's own, with the user, root and nobody.
    *_made("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    # The loader's index: of exactly the libraries of the set.
    *_made("libc-bin", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: the bundle, a link for each authority by name and by hash, the site's own authorities.
    *_made("ca-certificates", "debconf", "/etc/ca-certificates.conf"),
    *_made("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/*.crt", "/etc/ssl/certs/*.pem"),
    *_made("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/????????.[0-9]"),
    *_made("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*.crt"),
    *_made("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*/*.crt"),
    *_made("ca-certificates-java", "update-ca-certificates", "/etc/ssl/certs/java/cacerts"),
    # Local time, and the locales that the administrator chose.
    *_made("tzdata", "tzdata's postinst", "/etc/localtime", "/etc/timezone"),
    *_made("locales", "locale-gen", "/usr/lib/locale/locale-archive"),
    # `sh -l` sets PATH from it, and dpkg-vendor asks the other for the flags of a package's build.
    *_made("base-files", "base-files' postinst", "/etc/profile", "/etc/dpkg/origins/default"),
    # Where xsltproc and xmllint find DocBook without a network.
    *_made("xml-core", "update-xmlcatalog", "/etc/xml/catalog", "/etc/xml/*.xml"),
    # Compiled by dpkg triggers. GLib's package was renamed for 64-bit time in Debian 13.
    *_made("libglib2.0-0", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("libglib2.0-0", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *_made("libglib2.0-0t64", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *_made("libglib2.0-0t64", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *_made("libgdk-pixbuf-2.0-0", "gdk-pixbuf-query-loaders", "/usr/lib/*/gdk-pixbuf-2.0/*/loaders.cache"),
    *_made("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)
