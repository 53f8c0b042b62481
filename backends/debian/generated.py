"""The allow-list of files that no package owns and that a build may need, each tied to its package."""

from __future__ import annotations

from pkgjail.backends.unowned import generated
from pkgjail.core.jail_names import ENTRY_FILES, LD_CACHE
from pkgjail.core.text import text_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pkgjail.backends.debian.root import Root
    from pkgjail.core.model import Generated

_LISP = "/usr/share/emacs/site-lisp"
# Files that are in no row here come from ucf's registry, or because maintainer scripts name them
# (`pkgjail.fileset.unowned`). Found by comparing Debian 12 with all its file lists, after each of the 150
# packages that most sources build-depend on, and after languages (tests/host/unowned_sweep.py, which has the
# list of what is left out, and why). Files that a site adds are left out too (ld.so.conf.d, gitconfig,
# pip.conf): a whitelist names such paths. A link is taken only if it leads to a file of the set.
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
    # Names of networks for getnetbyname(3), and settings of devscripts that debconf asked for.
    *generated("netbase", "netbase's postinst", "/etc/networks"),
    *generated("devscripts", "debconf", "/etc/devscripts.conf"),
    # A link of systemd leads to it.
    *generated("libpam-modules", "libpam-modules' postinst", "/etc/environment"),
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
    # The types that programs look up; those in directories (text/plain.xml) only describe them.
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/mime.cache"),
    *generated(
        "shared-mime-info", "update-mime-database", "/usr/share/mime/aliases", "/usr/share/mime/types"
    ),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/globs", "/usr/share/mime/globs2"),
    *generated(
        "shared-mime-info", "update-mime-database", "/usr/share/mime/icons", "/usr/share/mime/version"
    ),
    *generated(
        "shared-mime-info", "update-mime-database", "/usr/share/mime/magic", "/usr/share/mime/treemagic"
    ),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/subclasses"),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/XMLnamespaces"),
    *generated("shared-mime-info", "update-mime-database", "/usr/share/mime/generic-icons"),
    # Fontconfig's choice of its own rules, by links to them. From Debian 13 on, the package lists some.
    *generated("fontconfig-config", "debconf", "/etc/fonts/conf.d/10-hinting-*.conf"),
    *generated("fontconfig-config", "debconf", "/etc/fonts/conf.d/10-unhinted.conf"),
    *generated("fontconfig-config", "debconf", "/etc/fonts/conf.d/10-autohint.conf"),
    *generated("fontconfig-config", "debconf", "/etc/fonts/conf.d/10-*sub-pixel*.conf"),
    *generated("fontconfig-config", "debconf", "/etc/fonts/conf.d/70-*bitmaps*.conf"),
    # Without it, GHC knows no package, not even its own.
    *generated("ghc", "ghc-pkg", "/var/lib/ghc/package.conf.d/package.cache"),
    # PHP's extensions are loaded by links to their settings, which ucf installs.
    *generated("php-common", "phpenmod", "/etc/php/*/*/conf.d/*.ini"),
    # TeX's formats, hyphenation, maps of fonts, lists of files, and its settings. Not the logs beside them.
    *generated("tex-common", "update-texmf", "/etc/texmf/web2c/texmf.cnf"),
    *generated("tex-common", "mktexlsr", "/var/lib/texmf/ls-R*"),
    *generated("tex-common", "fmtutil and updmap", "/var/lib/texmf/*-DEBIAN", "/var/lib/texmf/*-TEXLIVEDIST"),
    *generated("tex-common", "fmtutil", "/var/lib/texmf/web2c/*/*.fmt", "/var/lib/texmf/web2c/*/*.base"),
    *generated("tex-common", "fmtutil", "/var/lib/texmf/web2c/*/*.mem"),
    *generated("tex-common", "update-language", "/var/lib/texmf/tex/generic/config/language.*"),
    *generated("tex-common", "update-language", "/var/lib/texmf/tex/generic/tex-ini-files/*.tex"),
    *generated("tex-common", "updmap", "/var/lib/texmf/fonts/map/*/updmap/*.map"),
    *generated("tex-common", "paperconfig", "/var/lib/texmf/dvips/config/config*"),
    *generated("tex-common", "paperconfig", "/var/lib/texmf/dvipdfmx/*.cfg", "/var/lib/texmf/xdvi/*-paper"),
    # Catalogues by which jade, nsgmls and xmlto find document types.
    *generated("sgml-base", "update-catalog", "/etc/sgml/catalog", "/etc/sgml/[!x]*.cat"),
    *generated("sgml-base", "update-catalog", "/var/lib/sgml-base/supercatalog"),
    # Where Ghostscript finds fonts.
    *generated("ghostscript", "update-gsfontmap", "/var/lib/ghostscript/fonts/Fontmap"),
    *generated("ghostscript", "update-gsfontmap", "/var/lib/ghostscript/fonts/cidfmap"),
    # A link for each compiler that is there, to be first in PATH.
    *generated("ccache", "update-ccache-symlinks", "/usr/lib/ccache/*"),
    # Emacs loads it at each start, and packages of Emacs Lisp by it.
    *generated("emacsen-common", "emacs-package-install", f"{_LISP}/debian-startup.el*"),
    *generated(
        "dictionaries-common", "emacs-package-install", f"{_LISP}/dictionaries-common/debian-ispell.el*"
    ),
    *generated("dictionaries-common", "update-dictcommon", "/var/cache/dictionaries-common/emacsen-*.el"),
    # The word list and dictionary that the administrator chose, and the size of paper.
    *generated("dictionaries-common", "select-default-wordlist", "/etc/dictionaries-common/words"),
    *generated("dictionaries-common", "select-default-ispell", "/etc/dictionaries-common/ispell-default"),
    *generated("dictionaries-common", "select-default-ispell", "/etc/dictionaries-common/default.*"),
    *generated("libpaper1", "paperconfig", "/etc/papersize"),
    *generated("libpaper2", "paperconfig", "/etc/papersize"),
    # Free Pascal's settings, with the directories of its units.
    *generated("fp-compiler-3.2.2", "samplecfg", "/etc/fpc-3.2.2.cfg"),
    *generated("fp-ide-3.2.2", "samplecfg", "/etc/fp-3.2.2.cfg"),
)


def emacs_packages(root: Root) -> tuple[Generated, ...]:
    """Return rows for packages of Emacs Lisp, which their scripts compile from `elpa-src` into `elpa`.

    By dh_elpa(1), the package `elpa-NAME` has the directory NAME-VERSION.
    """
    directory = f"{_LISP}/elpa"
    rows: list[Generated] = []
    for name in sorted(map(text_path, root.names(root.inside(directory.encode())))):
        package, _, version = name.rpartition("-")
        if package and version[:1].isdigit() and not set("*?[") & set(name):
            rows += generated(f"elpa-{package}", "emacs-package-install", f"{directory}/{name}/*.el*")
    return tuple(rows)
