"""`pkgjail export`: write a manifest for another program."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from pkgjail.cli.console import ConsoleReporter
from pkgjail.cli.output import write_result
from pkgjail.cli.policy_options import add_source_options, root_of
from pkgjail.cli.results import without_file
from pkgjail.core.sources import refuse_other_source
from pkgjail.core.text import counted, printable

if TYPE_CHECKING:
    import argparse

    from pkgjail.cli.parser import Verbs
    from pkgjail.core.model import Manifest

_DESCRIPTION = """\
Write a manifest for another program to read: arguments for bubblewrap, settings for systemd-nspawn,
lines for fstab, a specification for mtree and bsdtar, a list for sha256sum, read rules for Spack's
Landlock sandbox, a bill of materials in SPDX or CycloneDX. Or write it with its files, for programs that
have no host with the packages: an image for container engines, a bundle for OCI runtimes, a squashfs
file system, a tar archive, a virtual machine of libvirt. A name that a format can't express is an error;
no name is left out silently.
"""
_EPILOG = """\
examples:
  pkgjail export base.manifest.jsonl --format sha256sums -o base.sha256
  pkgjail export base.manifest.jsonl --format cyclonedx -o base.cdx.json
  pkgjail export base.manifest.jsonl --format bwrap --at entry --skeleton -o base.bwrap
  pkgjail export base.manifest.jsonl --format fstab --at /srv/jail --skeleton -o jail.fstab
  pkgjail export base.manifest.jsonl --format oci-archive -o base.oci.tar && podman load -i base.oci.tar

docs/export.md says how each format is used, and what it cannot do.
"""
# Listed here so that the parser need not import the exporters; a test compares the two lists.
TEXTS = ("apptainer", "bwrap", "cyclonedx", "fstab", "landlock", "mtree", "nspawn", "sha256sums", "spdx")
IMAGES = ("docker-archive", "oci", "oci-archive", "oci-bundle", "squashfs", "tar")
DOMAINS = ("libvirt",)
FORMATS = (*TEXTS, *IMAGES, *DOMAINS)
COMPRESSIONS = ("gzip", "zstd")
BILLS = ("cyclonedx", "spdx")
_OF_DIGESTS = ("cyclonedx", "sha256sums", "spdx")
_OF_HOST_FILES = ("bwrap", "fstab", "nspawn")
_WITHOUT_ROOT = ("apptainer", "mtree", "sha256sums")
_WITH_SKELETON = ("bwrap", "fstab", "nspawn")


def add_parser(verbs: Verbs) -> None:
    """Add this verb's arguments and help."""
    parser = verbs.add_parser(
        "export",
        help="write a manifest for another program",
        description=_DESCRIPTION,
        epilog=_EPILOG,
    )
    parser.add_manifest()
    parser.add_argument(
        "--format",
        required=True,
        choices=FORMATS,
        metavar="FORMAT",
        help=f"{', '.join(TEXTS)}; with the files: {', '.join((*IMAGES, *DOMAINS))}",
    )
    parser.add_argument(
        "-o",
        "--output",
        default="-",
        metavar="FILE",
        help="write it here, not to standard output; oci, oci-bundle and libvirt write a directory",
    )
    add_source_options(parser, "where the manifest's files are")
    parser.add_argument(
        "--at",
        metavar="DIR",
        help="fstab: the jail's directory; bwrap: the directory with the files made at entry; apptainer: the "
        "file that the format oci-archive wrote",
    )
    parser.add_argument(
        "--skeleton",
        action="store_true",
        help="make DIR with what the format can't express: files made at entry and, for fstab and nspawn, "
        "directories, links and mount points",
    )
    parser.add_argument(
        "--compress",
        choices=COMPRESSIONS,
        help="compress the layers of oci and oci-archive, or squashfs (gzip by default): the bytes then "
        "depend on the program that compresses",
    )
    parser.add_argument(
        "--name",
        metavar="NAME[:TAG]",
        help="the image's name in oci, oci-archive and docker-archive (by default that of the whitelists)",
    )
    parser.add_argument(
        "--sbom", choices=BILLS, help="attach a bill of materials to the image in oci and oci-archive"
    )
    parser.add_argument(
        "--kernel",
        metavar="PATH",
        help="libvirt: a kernel's file, a directory with boot/ and lib/modules/, or a Debian package of one "
        "(default: the newest of the source or of this host)",
    )
    parser.add_argument(
        "--json", action="store_true", help="print what was written, and warnings, as JSON; goes with -o FILE"
    )
    parser.set_defaults(run=run, failure=0, result_is_output=without_file)


def run(arguments: argparse.Namespace) -> int:
    """Write the skeleton, if requested, and then the export."""
    from pkgjail.cli.manifests import read_manifest
    from pkgjail.core.errors import UsageError
    from pkgjail.export import export_manifest
    from pkgjail.storage.atomic import replace_file

    form: str = arguments.format
    if arguments.skeleton and (form not in _WITH_SKELETON or arguments.at is None):
        raise UsageError(f"--skeleton goes with --at DIR and one of {', '.join(_WITH_SKELETON)}")
    if arguments.json and arguments.output == "-":
        raise UsageError("--json needs -o FILE: the export itself goes to standard output")
    if form in (*IMAGES, *DOMAINS) and arguments.output == "-":
        raise UsageError(f"--format {form} needs -o FILE: nothing is written until every file was compared")
    unfit = [f"--{name}" for name in ("compress", "name", "sbom") if getattr(arguments, name)]
    if form not in IMAGES and unfit:
        raise UsageError(f"{unfit[0]} goes with the formats {', '.join(IMAGES)}")
    if arguments.kernel and form not in DOMAINS:
        raise UsageError(f"--kernel goes with the format {', '.join(DOMAINS)}")
    manifest = read_manifest(arguments.manifest)
    root = root_of(arguments)
    if form in IMAGES:
        return _export_image(manifest, arguments, root)
    if form in DOMAINS:
        return _export_domain(manifest, arguments, root)
    if form not in _WITHOUT_ROOT:
        refuse_other_source(manifest, root)
    at = None if arguments.at is None else os.fsencode(os.path.realpath(arguments.at))
    data = export_manifest(manifest, form, root=root, at=at)
    _warn(manifest, arguments, root, at)
    if arguments.skeleton and at is not None:
        from pkgjail.core.jail_names import RUN
        from pkgjail.export.skeleton import write_skeleton
        from pkgjail.jails.run import content_at_entry

        # systemd-nspawn mounts a filesystem on /run, and fails where there is no such directory.
        besides = (RUN,) if form == "nspawn" else ()
        content = content_at_entry(manifest, root)
        write_skeleton(manifest, at, content, mount_points=form != "bwrap", besides=besides)
    if arguments.output == "-":
        write_result(data)
    else:
        replace_file(arguments.output, data)
    if arguments.json:
        print(json.dumps({"file": arguments.output, "format": form, "bytes": len(data)}, indent=2))
    return 0


def _export_image(manifest: Manifest, arguments: argparse.Namespace, root: bytes) -> int:
    from pkgjail.export.image import export_image

    with ConsoleReporter(as_json=arguments.json) as reporter:
        exported = export_image(
            manifest,
            arguments.format,
            arguments.output,
            root=root,
            compression=arguments.compress or "",
            name=arguments.name or "",
            bill=arguments.sbom or "",
            reporter=reporter,
        )
    if arguments.json:
        facts = {"file": arguments.output, "format": arguments.format}
        image = {"digest": exported.digest, "diff_ids": exported.diff_ids} if exported.digest else {}
        print(json.dumps({**facts, **image}, indent=2))
    elif exported.digest:
        print(exported.digest)
    return 0


def _export_domain(manifest: Manifest, arguments: argparse.Namespace, root: bytes) -> int:
    from pkgjail.machine.libvirt import DOMAIN, export_domain

    with ConsoleReporter(as_json=arguments.json) as reporter:
        export_domain(manifest, arguments.output, root=root, kernel=arguments.kernel or "", reporter=reporter)
    written = os.path.join(os.path.abspath(arguments.output), DOMAIN)
    facts = {"file": arguments.output, "format": arguments.format, "domain": written}
    print(json.dumps(facts, indent=2) if arguments.json else written)
    return 0


def _warn(manifest: Manifest, arguments: argparse.Namespace, root: bytes, at: bytes | None) -> None:
    """Warn of files of the manifest that the export lacks, and of exported files that the host lacks."""
    from pkgjail.export.common import entry_files, host_files
    from pkgjail.jails.host_mismatch import absent_paths, explain_absence

    form: str = arguments.format
    with ConsoleReporter(as_json=arguments.json) as reporter:
        if form in _OF_HOST_FILES:
            files = host_files(manifest)
            absent = absent_paths(files, root)
            if cause := explain_absence(manifest, root, len(absent), len(files)):
                reporter.warn(cause)
            elif absent:
                reporter.warn(
                    f"the host lacks {counted(len(absent), 'file')} of the manifest, "
                    f"among them {printable(absent[0])}"
                )
        left_out = len(entry_files(manifest))
        if form == "bwrap" and at is None and left_out:
            message = _left_out(left_out, "made at entry")
            reporter.warn(f"{message}; --at DIR --skeleton adds them")
        without = sum(1 for e in manifest.files if e.kind == "regular" and e.sha256 is None)
        if form in _OF_DIGESTS and without:
            reporter.warn(_left_out(without, "without a digest"))


def _left_out(number: int, which: str) -> str:
    return f"{counted(number, 'file')} {which} {'is' if number == 1 else 'are'} left out"
