"""`pkgjail image`: import images into a store or create them there, list, show, verify and remove them."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from pkgjail.cli.console import ConsoleReporter, human_size
from pkgjail.cli.exit_status import FAILURE
from pkgjail.cli.limit_options import count, size
from pkgjail.cli.results import always, never, without_file
from pkgjail.cli.verbosity import is_quiet, print_note
from pkgjail.core.errors import UsageError
from pkgjail.core.text import counted, first_of, printable, text_path

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from pkgjail.cli.parser import Parser, Verbs
    from pkgjail.images.model import Image, ImageLimits

_DESCRIPTION = """\
Keep images of systems in a store: a root that another machine, a container engine or mmdebstrap made.
An image is known by a name and by its digest, the SHA-256 of the list of all its files.
"""
_EPILOG = """\
examples:
  pkgjail image create bookworm --whitelist spack
  pkgjail image import rocky9.oci.tar rocky9
  pkgjail image ls
  pkgjail image verify bookworm
  pkgjail image rm bookworm

The store is the directory that --store names, or the variable PKGJAIL_STORE, or pkgjail/images in your
data directory ($XDG_DATA_HOME or ~/.local/share).
"""
_IMPORT = """\
Import an image: a tar archive, plain or compressed (gzip, bzip2, xz, zstd); a directory with a root; an OCI
layout or its archive; an archive of 'docker save'; a squashfs.

No root is needed. The files belong to you, and their owners are recorded. Device nodes, FIFOs and sockets
are left out; set-user-ID and set-group-ID are recorded, and are not on the disk.

An archive with a member that must not be in an image is refused as a whole: a name that is absolute or has
'..', a link that leads out, a name below a link, a name twice, and others (docs/images.md).
"""
_STORE_HELP = "the store's directory (default: PKGJAIL_STORE, or the one in your data directory)"
_CREATE = """\
Create an image of Debian with the packages that whitelists name: mmdebstrap downloads and installs them.

An entry of a whitelist is satisfied as apt satisfies a package's Depends: the first of 'a | b' that there is,
a provider of a virtual package, a version. What these require is installed, too, and so is all that the
variant has. Paths in whitelists are left out, with a warning. An ordinary user needs subordinate ids
(/etc/subuid, /etc/subgid) and the package uidmap.
"""
_CREATE_EPILOG = """\
examples:
  pkgjail image create spack --whitelist spack
  pkgjail image create trixie --suite trixie --whitelist ./mine.toml --include cmake,ninja-build
  pkgjail image create near --suite bookworm --mirror http://mirror.example.org/debian
  pkgjail image create site --suite sid --mirror 'deb http://mirror.example.org/debian sid main contrib'

Then it is a source like any other: pkgjail resolve --source image:spack spack -o spack.jsonl

The same packages give the same digest, whoever creates the image and when, unless SOURCE_DATE_EPOCH is set.
"""
_EXPORT = """\
Write an image with all that was imported: owners, set-user-ID bits, hard links. Imported again, it has the
same digest. Each file is compared with the list; nothing is written if one has changed.
"""
_EXPORT_EPILOG = """\
examples:
  pkgjail image export bookworm | tar -t | head
  pkgjail image export bookworm --format oci-archive -o bookworm.oci.tar && podman load -i bookworm.oci.tar
  pkgjail image export bookworm --format squashfs --compress zstd -o bookworm.sqfs
"""
EXPORTS = ("docker-archive", "oci", "oci-archive", "squashfs", "tar")
VARIANTS = ("apt", "buildd", "essential", "important", "minbase", "required", "standard")
FORMS = ("auto", "tar", "directory", "oci", "docker", "squashfs")


def add_parser(verbs: Verbs) -> None:
    """Add this verb's commands and help."""
    parser = verbs.add_parser(
        "image",
        help="import, create, list, verify and remove images",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    commands: Verbs = parser.add_subparsers(title="commands", metavar="COMMAND", dest="what", required=True)
    _add_import(commands)
    _add_create(commands)
    _add(commands, "ls", _list, "list the images of a store, those without a name last", always)
    shown = _add(commands, "show", _show, "show what an image is, where, and what was left out", always)
    removed = _add(
        commands, "rm", _remove, "remove images that nobody uses, or a name if the image has another", never
    )
    verified = _add(commands, "verify", _verify, "compare an image's files with their list", never)
    exported = _add(
        commands,
        "export",
        _export,
        "write an image as an archive, a file system or an OCI image",
        without_file,
        description=_EXPORT,
        epilog=_EXPORT_EPILOG,
    )
    exported.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="write it here, not to standard output; oci writes a directory",
    )
    exported.add_argument(
        "--format",
        choices=EXPORTS,
        default="tar",
        metavar="FORMAT",
        help=f"{', '.join(EXPORTS)} (default: tar)",
    )
    exported.add_argument(
        "--compress", choices=("gzip", "zstd"), help="compress the layer of oci and oci-archive, or squashfs"
    )
    _add(commands, "prune", _prune, "remove images without a name, and what killed processes left", never)
    for each in (shown, verified, exported):
        each.add_argument("name", metavar="IMAGE", help="its name or digest")
    removed.add_argument("names", nargs="+", metavar="IMAGE", help="its name or digest")
    parser.inner = dict(commands.choices)


def _add_import(commands: Verbs) -> None:
    parser = _add(commands, "import", _import, "import an image", never, description=_IMPORT)
    parser.add_argument("source", metavar="SRC", help="an archive, a directory, or - for standard input")
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="its name (default: SRC's without endings)"
    )
    parser.add_argument(
        "--format", choices=FORMS, default="auto", metavar="FORMAT", help=f"SRC's form: {', '.join(FORMS)}"
    )
    parser.add_argument(
        "--ref", default="", metavar="REF", help="which image of a layout: its name there, or its tag"
    )
    _add_keeping(parser)


def _add_keeping(parser: Parser) -> None:
    """Add the options of commands that make an image."""
    parser.add_argument(
        "--replace", action="store_true", help="take NAME from another image; that stays, without a name"
    )
    parser.add_argument(
        "--max-names", type=count, metavar="N", help="refuse more names than that (default 1,000,000)"
    )
    parser.add_argument(
        "--max-size", type=size, metavar="SIZE", help="refuse more bytes than that, as 100G (default 64G)"
    )


def _add_create(commands: Verbs) -> None:
    parser = _add(
        commands,
        "create",
        _create,
        "create an image by mmdebstrap",
        never,
        description=_CREATE,
        epilog=_CREATE_EPILOG,
    )
    parser.add_argument("name", metavar="NAME", help="its name")
    parser.add_argument(
        "--whitelist",
        action="append",
        default=[],
        metavar="LIST",
        help="install the packages that it names: base, build, spack, or a file (may be repeated)",
    )
    parser.add_argument(
        "--suite", default="", help="the release, such as bookworm (default: this host's, if it is Debian)"
    )
    parser.add_argument(
        "--arch",
        default="",
        help="the architecture, such as arm64 or aarch64, whose programs run here (default: this machine's)",
    )
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="URL",
        help="where packages are: an address, a line of sources.list, or a file with such lines (may be "
        "repeated; default: this host's apt sources of the suite, or deb.debian.org)",
    )
    parser.add_argument(
        "--include",
        action="append",
        default=[],
        metavar="PKG",
        help="install this package too; several with commas between them (may be repeated)",
    )
    parser.add_argument(
        "--variant",
        choices=VARIANTS,
        default="minbase",
        metavar="VARIANT",
        help=f"what is there besides: {', '.join(VARIANTS)} (default: minbase)",
    )
    parser.add_argument(
        "--recommends",
        action="store_true",
        default=None,
        help="install their Recommends, too",
    )
    _add_keeping(parser)


def _add(  # noqa: PLR0913, PLR0917 - one command a line
    commands: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    result_is_output: Callable[[argparse.Namespace], bool],
    description: str = "",
    epilog: str = "",
) -> Parser:
    """Add a command with the options that all have."""
    description = description or f"{text[0].upper()}{text[1:]}."
    parser: Parser = commands.add_parser(name, help=text, description=description, epilog=epilog)
    parser.add_argument("--store", default="", metavar="DIR", help=_STORE_HELP)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run, failure=0, result_is_output=result_is_output)
    return parser


def _import(arguments: argparse.Namespace) -> int:
    from pkgjail.images.importing import import_image

    with ConsoleReporter(as_json=arguments.json) as reporter:
        image = import_image(
            arguments.source,
            arguments.name,
            store=arguments.store,
            form=arguments.format,
            reference=arguments.ref,
            replace=arguments.replace,
            limits=_limits(arguments),
            reporter=reporter,
        )
    _print_made(image, as_json=arguments.json)
    return 0


def _create(arguments: argparse.Namespace) -> int:
    from pkgjail.api import create_image

    def listen(line: str) -> None:
        if not (arguments.json or is_quiet()):
            print(f"mmdebstrap: {printable(line)}", file=sys.stderr)

    with ConsoleReporter(as_json=arguments.json) as reporter:
        image = create_image(
            arguments.name,
            arguments.whitelist,
            suite=arguments.suite,
            architecture=arguments.arch,
            mirrors=arguments.mirror,
            include=arguments.include,
            variant=arguments.variant,
            recommends=arguments.recommends,
            store=arguments.store,
            replace=arguments.replace,
            limits=_limits(arguments),
            reporter=reporter,
            listen=listen,
        )
    _print_made(image, as_json=arguments.json)
    return 0


def _limits(arguments: argparse.Namespace) -> ImageLimits:
    from pkgjail.images.model import MOST_BYTES, MOST_NAMES, ImageLimits

    return ImageLimits(names=arguments.max_names or MOST_NAMES, bytes=arguments.max_size or MOST_BYTES)


def _print_made(image: Image, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(_facts(image), indent=2))
    else:
        print(f"{image.name}: {counted(image.names, 'name')}, {human_size(image.bytes)}\n{image.digest}")


def _list(arguments: argparse.Namespace) -> int:
    from pkgjail.images.store import list_images

    images = list_images(arguments.store)
    _print_images(images, as_json=arguments.json)
    if not arguments.json:
        print(f"{counted(len(images), 'image')}")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    from pkgjail.images.store import find_image

    facts = _facts(find_image(arguments.name, arguments.store))
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    left_out = facts.pop("left_out")
    facts["bytes"] = f"{facts['bytes']:,}"
    facts["names"] = f"{facts['names']:,}"
    facts["left out"] = f"{left_out['special']:,} device nodes, FIFOs and sockets"
    facts["not on disk"] = (
        f"set-user-ID or set-group-ID of {counted(left_out['set_id'], 'file')}, owners of "
        f"{counted(left_out['owned'], 'name')}, attributes of {counted(left_out['attributes'], 'name')}"
    )
    for key, value in facts.items():
        print(f"{key + ':':13}{printable(str(value))}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from pkgjail.core.errors import describe_changes
    from pkgjail.images.store import used_image, verify_image

    reporter = ConsoleReporter(as_json=arguments.json)
    with used_image(arguments.name, arguments.store) as image, reporter:
        changes = verify_image(image, reporter)
    rows = describe_changes(changes)
    if arguments.json:
        found = [{"path": text_path(path), "found": words} for path, words in rows]
        print(json.dumps({"digest": image.digest, "differences": found}, indent=2))
    else:
        for row in first_of([f"{printable(path)} {words}" for path, words in rows], 200):
            print(row)
        print(f"{counted(image.names, 'name')}, {counted(len(changes), 'difference')}")
    return FAILURE if changes else 0


def _export(arguments: argparse.Namespace) -> int:
    from pkgjail.export.image.stored import archive_image, export_stored_image
    from pkgjail.images.store import used_image

    path: str = arguments.output
    if path == "-" and (sys.stdout.isatty() or arguments.json):
        raise UsageError("cannot write an archive to a terminal or beside JSON; name a file with -o")
    if path == "-" and arguments.format != "tar":
        raise UsageError(f"cannot write {arguments.format} to standard output: name a path with -o")
    reporter = ConsoleReporter(as_json=arguments.json)
    with used_image(arguments.name, arguments.store) as image, reporter:
        if path == "-":
            archive_image(image, sys.stdout.buffer, reporter=reporter)
            return 0
        exported = export_stored_image(
            image, arguments.format, path, compression=arguments.compress or "", reporter=reporter
        )
    if arguments.json:
        facts = {"file": path, "format": arguments.format, "digest": image.digest}
        print(json.dumps({**facts, **({"image": exported.digest} if exported.digest else {})}, indent=2))
    elif exported.digest:
        print(exported.digest)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    from pkgjail.images.store import remove_image

    _print_images([remove_image(name, arguments.store) for name in arguments.names], as_json=arguments.json)
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from pkgjail.images.store import prune_images

    removed = prune_images(arguments.store)
    _print_images(removed, as_json=arguments.json)
    if not arguments.json:
        print_note(f"{counted(len(removed), 'image')} removed")
    return 0


def _print_images(images: Sequence[Image], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps([_facts(image) for image in images], indent=2))
        return
    for image in images:
        short = image.digest[: len("sha256:") + 12]
        room = human_size(image.bytes)
        print(f"{image.name or '-':20} {short}  {image.names:9,} names  {room:>9}  {image.format}")


def _facts(image: Image) -> dict[str, Any]:
    return {
        "name": image.name,
        "digest": image.digest,
        "format": image.format,
        "names": image.names,
        "bytes": image.bytes,
        "root": text_path(image.root),
        "left_out": image.left_out._asdict(),
    }
