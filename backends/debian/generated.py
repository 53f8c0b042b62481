"""The allow-list of files that no package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.backends.unowned import generated
from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.model import text_path

# Found by comparing a Debian 12 build host with all its file lists. Unowned files that no build needs are
# left out: caches of icons and manual pages, shadow files of accounts, machine-id, mtab, init and PAM
# links. So are files that a site adds (ld.so.conf.d, gitconfig, pip.conf): a whitelist names such paths.
GENERATED = (
    # Accounts and name resolution: the jail's own, with the user, root and nobody.
    *generated("", "pkgjail", *map(text_path, ENTRY_FILES), at_entry=True),
    # The ld.so cache, for exactly the libraries of the set.
    *generated("libc-bin", "ldconfig", text_path(LD_CACHE), at_entry=True),
    # TLS: the bundle, a link for each authority by name and by hash, the site's own authorities.
    *generated("ca-certificates", "debconf", "/etc/ca-certificates.conf"),
    *generated("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/*.crt", "/etc/ssl/certs/*.pem"),
    *generated("ca-certificates", "update-ca-certificates", "/etc/ssl/certs/????????.[0-9]"),
    *generated("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*.crt"),
    *generated("ca-certificates", "the administrator", "/usr/local/share/ca-certificates/*/*.crt"),
    *generated("ca-certificates-java", "update-ca-certificates", "/etc/ssl/certs/java/cacerts"),
    # Local time, and the locales that the administrator chose.
    *generated("tzdata", "tzdata's postinst", "/etc/localtime", "/etc/timezone"),
    *generated("locales", "locale-gen", "/usr/lib/locale/locale-archive"),
    # `sh -l` sets PATH from it, and dpkg-vendor asks the other for the flags of a package's build.
    *generated("base-files", "base-files' postinst", "/etc/profile", "/etc/dpkg/origins/default"),
    # Where xsltproc and xmllint find DocBook without a network.
    *generated("xml-core", "update-xmlcatalog", "/etc/xml/catalog", "/etc/xml/*.xml"),
    # Compiled by dpkg triggers. GLib's package was renamed for 64-bit time in Debian 13.
    *generated("libglib2.0-0", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *generated("libglib2.0-0", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *generated("libglib2.0-0t64", "glib-compile-schemas", "/usr/share/glib-2.0/schemas/gschemas.compiled"),
    *generated("libglib2.0-0t64", "gio-querymodules", "/usr/lib/*/gio/modules/giomodule.cache"),
    *generated(
        "libgdk-pixbuf-2.0-0", "gdk-pixbuf-query-loaders", "/usr/lib/*/gdk-pixbuf-2.0/*/loaders.cache"
    ),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
)
