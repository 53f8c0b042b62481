"""What is fuzzed: each reader of files that others write, called with such a file's bytes.

A reader returns or raises what it is documented to raise. Anything else is a finding: another error, ten
seconds without an end, more than a gigabyte. A reader of whole roots and repositories gets a sound one in
which one file has those bytes.
"""

from __future__ import annotations

import atexit
import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
import tempfile
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Callable, NamedTuple
from unittest import mock

from pkgjail.audit.advice import advise
from pkgjail.audit.compare import compare_audits
from pkgjail.audit.libraries import known_libraries
from pkgjail.audit.record import dump_audit, parse_audit
from pkgjail.audit.section import audit_section
from pkgjail.audit.spack_names import SpackNames
from pkgjail.audit.wanted import used
from pkgjail.backends import open_database
from pkgjail.backends.debian.root import Root as DebianRoot
from pkgjail.backends.debian.ucf import read_ucf
from pkgjail.backends.release import read_distribution, read_release, release_families
from pkgjail.backends.root import Root
from pkgjail.backends.rpm import query
from pkgjail.backends.rpm.store import database_directories, has_no_packages
from pkgjail.cli.audit_text import facts, markdown
from pkgjail.cli.audit_text import text as audit_text
from pkgjail.closure.search import resolve_closure
from pkgjail.core.devices import absence_reason, find_devices, pattern_fault
from pkgjail.core.errors import PkgjailError
from pkgjail.core.families import DEBIAN, family_of, with_family
from pkgjail.core.model import (
    DependencyGroup,
    FileEntry,
    Manifest,
    Package,
    PackageDatabase,
    Policy,
    Relation,
    Requirement,
)
from pkgjail.core.paths import Names
from pkgjail.core.programs import ProgramOutput
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import text_path
from pkgjail.core.untrusted import MIB
from pkgjail.environments.record import parse_journal, parse_record
from pkgjail.export import export_manifest
from pkgjail.export.image.stored import archive_image
from pkgjail.images import tree
from pkgjail.images.importing import import_image
from pkgjail.images.model import ImageLimits
from pkgjail.images.store import remove_image, verify_image
from pkgjail.integrations.spack.active import ActiveEnvironment, load_active, load_cache
from pkgjail.jails.package_database import database_changes, database_content
from pkgjail.jails.rpm_database import _identity, filtered_database
from pkgjail.manifest import dump_manifest, parse_manifest
from pkgjail.policy import load_policy
from pkgjail.policy.patterns import matcher
from pkgjail.repositories import open_available
from pkgjail.repositories.solver import solve
from pkgjail.review.check.compiler import compiler_gaps
from pkgjail.review.check.dynamic import catch_unanswered
from pkgjail.review.check.elf import DamagedError, read_elf
from pkgjail.review.check.languages import language_gaps
from pkgjail.review.check.ld_search import LdSearch
from pkgjail.review.check.libraries import library_gaps
from pkgjail.review.check.modules import perl_gaps, python_gaps
from pkgjail.review.check.scripts import script_gaps
from pkgjail.review.diff import diff_manifests
from pkgjail.review.graph import graph_view
from pkgjail.review.graph_formats import as_graphml, as_json, dot, mermaid
from pkgjail.review.report import report_page
from pkgjail.review.why import why
from pkgjail.settings.read import read_settings
from tests import tars
from tests.manifest_cases import sample
from tests.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CORPUS = Path(__file__).with_name("corpus")


@contextmanager
def refusing(*raises: type[Exception]) -> Iterator[None]:
    """Let such errors pass, once their text was made."""
    try:
        yield
    except raises as error:
        str(error)


class Target(NamedTuple):
    """One reader, its share of all inputs (slow ones have less), and what it may raise."""

    read: Callable[[bytes], object]
    share: int = 1
    raises: type[Exception] = PkgjailError

    def __call__(self, data: bytes) -> str:
        """Read `data`: why it is refused, or "". Whatever is raised here is a finding."""
        try:
            self.read(data)
        except self.raises as error:
            return str(error)
        return ""


@cache
def place() -> Path:
    """A directory for the files of this process, gone with it."""
    path = tempfile.mkdtemp(prefix="pkgjail-fuzz-")
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return Path(path)


def _put(name: str, data: bytes) -> Path:
    path = place() / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


# --- lists ------------------------------------------------------------------------------------

_MEMORY = MemoryDatabase.from_text(
    """
    libc6 2.36 amd64 essential
    gcc 12.2 amd64
     Depends: libc6 (>= 2.36)
     /usr/bin/gcc
    """
)
_PATHS = (b"/", b"/usr", b"/usr/bin/gcc", b"/usr/share/doc/a" + b"a" * 200 + b"/x.gz", b"/opt/\xff\n")


def _whitelist(data: bytes) -> None:
    policy = load_policy([str(_put("lists/fuzzed.toml", data))], database=_MEMORY)
    resolve_closure(_MEMORY, policy)


def _blacklist(data: bytes) -> None:
    whitelist = _put("lists/sound.toml", b'[packages]\ndebian = ["gcc"]\n')
    policy = load_policy([str(whitelist)], [str(_put("lists/fuzzed.ignore", data))], database=_MEMORY)
    match = matcher(policy.drops)
    for path in _PATHS:
        match(path)
        match(path, is_directory=True)


def _settings(data: bytes) -> None:
    read_settings(site="", user=str(_put("settings/pkgjail.toml", data)), variables={})


# --- what pkgjail writes itself --------------------------------------------------------------


def _with_digest_line(data: bytes) -> bytes:
    """With its last line made right, since nothing else of a changed one is looked at."""
    body = data[: data.rfind(b"\n", 0, -1) + 1]
    end = {"kind": "end", "records": body.count(b"\n"), "sha256": hashlib.sha256(body).hexdigest()}
    return body + json.dumps(end, separators=(",", ":")).encode() + b"\n"


def _manifest(data: bytes) -> None:
    for text in (data, _with_digest_line(data)):
        with refusing(PkgjailError):
            manifest = parse_manifest(text, "fuzzed.jsonl")
            assert dump_manifest(manifest) == text
            _uses_of(manifest)


def _uses_of(manifest: Manifest) -> None:
    """Tell of a manifest all that can be told: its reader may be another user than its author."""
    diff_manifests(sample(), manifest)
    shape = graph_view(manifest, collapse=True)
    for draw in (dot, mermaid, as_graphml, as_json):
        draw(shape)
    report_page(manifest, "sha256:0")
    names = [package.name for package in manifest.packages]
    with refusing(PkgjailError):
        why(manifest, [*names, *(text_path(entry.path) for entry in manifest.files)])
    for form in ("bwrap", "fstab", "mtree", "nspawn", "sha256sums"):
        with refusing(PkgjailError):
            export_manifest(manifest, form, at=b"/srv/jail")


def _audit(data: bytes) -> None:
    """Read the record of an audit, and tell all that can be told of it."""
    for text in (data, _with_digest_line(data)):
        with refusing(PkgjailError):
            audit = parse_audit(text, "fuzzed.jsonl")
            assert dump_audit(audit) == text
            advice = advise(audit, SpackNames([], ()))
            list(audit_text(audit, advice, None, most=None, command=""))
            markdown(audit, advice)
            json.dumps(facts(audit, advice, None))
            audit_section(audit, advice, used(audit, sample()))
            assert compare_audits(audit, audit).same


def _ld_cache(data: bytes) -> None:
    """Read a loader's cache of another system."""
    root = _put("ld/etc/ld.so.cache", data).parents[1]
    assert all(path.startswith(b"/") for path in known_libraries(os.fsencode(root)).values())


def _record(data: bytes) -> None:
    for parse, text in ((parse_record, data), (parse_record, _with_digest_line(data)), (parse_journal, data)):
        with refusing(PkgjailError):
            parse(text, "fuzzed.jsonl")


def _active(data: bytes) -> None:
    _put("spack/kept/instances.json", data)
    load_cache(
        ActiveEnvironment(
            "/srv/env", "/usr/bin/python3", 1, removing=False, directory=str(place() / "spack/kept")
        )
    )
    _put("spack/opt/.pkgjail/active.json", data)
    load_active(str(place() / "spack"), {"SPACK_USER_CACHE_PATH": str(place() / "cache")})


# --- databases of packages -------------------------------------------------------------------

_OS_RELEASE = b'ID=debian\nVERSION_ID="12"\n'
_STATUS = b"""\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22

Package: a
Status: install ok installed
Architecture: amd64
Version: 1.0-1
Essential: yes
Depends: dpkg (>= 1.0) | none
Conffiles:
 /etc/a.conf d41d8cd98f00b204e9800998ecf8427e

"""
_DPKG = {
    "etc/os-release": _OS_RELEASE,
    "var/lib/dpkg/status": _STATUS,
    "var/lib/dpkg/info/format": b"1\n",
    "var/lib/dpkg/info/dpkg.list": b"/.\n/usr\n/usr/bin\n/usr/bin/dpkg\n",
    "var/lib/dpkg/info/a.list": b"/.\n/etc\n/etc/a.conf\n/usr\n/usr/bin\n/usr/bin/a\n",
}
_ARCH = {
    "etc/os-release": b"ID=arch\n",
    "var/lib/pacman/local/ALPM_DB_VERSION": b"9\n",
    "var/lib/pacman/local/a-1-1/desc": b"%NAME%\na\n\n%VERSION%\n1-1\n\n%ARCH%\nany\n\n%DEPENDS%\na>=1\n\n",
    "var/lib/pacman/local/a-1-1/files": b"%FILES%\nusr/\nusr/bin/\nusr/bin/a\n\n",
}
_RPM = {
    "etc/os-release": b'ID=fedora\nVERSION_ID="39"\n',
    "var/lib/rpm/rpmdb.sqlite": b"",
}


_REQUIREMENT = Requirement(
    text="a",
    origin="fuzzed",
    groups=(DependencyGroup(kind="whitelist", alternatives=(Relation(name="a"),), text="a"),),
)
_POLICY = Policy(whitelists=("w",), blacklists=(), packages=(_REQUIREMENT,))


def _all_of(database: PackageDatabase) -> None:
    """Ask a database everything, as `resolve` and `verify` do."""
    for asked in ("distribution", "architecture"):
        getattr(database, asked)
    for package in database.packages.values():
        for group in database.requirements(package, recommends=True):
            for relation in group.alternatives:
                if not database.candidates(relation, package.architecture):
                    database.unmet_reason(relation, package.architecture)
        for ask in (database.owned_paths, database.conffiles, database.digests):
            ask(package)
    database.owners({b"/usr/bin/a", b"/etc"})
    database.alternatives()
    database.generated()
    resolve_closure(database, _POLICY)


@cache
def _root(kind: str) -> Path:
    for name, data in {"dpkg": _DPKG, "pacman": _ARCH, "rpm": _RPM}[kind].items():
        _put(f"{kind}/{name}", data)
    return place() / kind


def _database(kind: str, name: str, data: bytes, backends: Sequence[str] = ()) -> None:
    """A root of `kind` in which the file `name` has `data`."""
    root = _root(kind)
    sound = {"dpkg": _DPKG, "pacman": _ARCH, "rpm": _RPM}[kind].get(name)
    _put(f"{kind}/{name}", data)
    try:
        for backend in backends or (kind,):
            with refusing(PkgjailError):
                _all_of(open_database(os.fsencode(root), backend))
    finally:
        (root / name).unlink() if sound is None else _put(f"{kind}/{name}", sound)


def _mtree(data: bytes) -> None:
    packed = data if data.startswith(b"\x1f\x8b") else gzip.compress(data, 1)
    _database("pacman", "var/lib/pacman/local/a-1-1/mtree", packed)


def _rpm_answer(data: bytes) -> None:
    """A root of which rpm prints this: of its packages, and of their files' digests."""
    with mock.patch.multiple(query, _ask=lambda *_: data, copy_store=lambda *_: None):
        _database("rpm", "var/lib/rpm/rpmdb.sqlite", b"x")


_KEPT = Manifest(
    header=sample().header,
    dependencies=(),
    packages=(
        Package(name="a", version="1.0-1", architecture="amd64"),
        Package(name="dpkg", version="1.21.22", architecture="amd64"),
    ),
    files=tuple(
        FileEntry(path=b"/var/lib/dpkg/" + name, kind="regular", mode=0o644, origin="entry", detail="dpkg")
        for name in (b"arch", b"diversions", b"status")
    ),
)


def _jail_records(data: bytes) -> None:
    """The files that a jail's records of dpkg are made from; of the status it has a part, unchanged."""
    root = _put("records/var/lib/dpkg/status", data).parents[3]
    _put("records/var/lib/dpkg/diversions", data)
    content = database_content(_KEPT, os.fsencode(root))
    records = content[b"/var/lib/dpkg/status"].split(b"\n\n")
    assert len(records) <= len(_KEPT.packages) + 1
    assert all(record in data for record in records)
    for change in database_changes(_KEPT, os.fsencode(root)):
        str(change)


def _rpm_header(data: bytes) -> None:
    with refusing(struct.error, ValueError):
        _identity(data)


def _rpm_file(data: bytes) -> None:
    """The file that rpm's database of a jail is made from."""
    file = _put("rpmdb/var/lib/rpm/rpmdb.sqlite", data)
    has_no_packages(os.fsencode(file))
    packages = frozenset({("a", "1-1", "x86_64")})
    filtered_database(os.fsencode(file.parents[3]), b"/var/lib/rpm/rpmdb.sqlite", packages, (data,))


def _rpm_macros(data: bytes) -> None:
    root = _put("macros/etc/rpm/macros", data).parents[2]
    for directory in database_directories(Root(os.fsencode(root))):
        assert directory.startswith(b"/")


_RELEASES = ("os-release", "oracle-release", "SuSE-release", "lsb-release", "debian_version")


def _release(data: bytes) -> None:
    """The file that names a distribution. The first byte chooses which."""
    name = _RELEASES[data[0] % len(_RELEASES)] if data else "os-release"
    root = Root(os.fsencode(_put(f"{name}/etc/{name}", data[1:]).parents[1]))
    families = release_families(read_release(root))
    found = read_distribution(root)
    for family in (*families, DEBIAN):
        assert family_of(with_family(found, family)) == family


def _ucf(data: bytes) -> None:
    """The registry, in a root that has a file which it can name."""
    root = _put("ucf/var/lib/ucf/registry", data).parents[3]
    if not (root / "etc/ucf.conf").exists():
        _put("ucf/var/lib/dpkg/status", b"")
        _put("ucf/etc/ucf.conf", b"")
    read_ucf(DebianRoot(os.fsencode(root)))


def _devices(data: bytes) -> None:
    """Patterns of devices, one a line, on this host."""
    for pattern in data.split(b"\n")[:4]:
        if not pattern_fault(pattern):
            found = find_devices([pattern])
            assert all(path.startswith(b"/dev/") for path, *_ in found)
            absence_reason(pattern)


# --- repositories ----------------------------------------------------------------------------


def _available(source: str, *, contents: bool = False) -> None:
    pool = open_available([source], "x86_64", contents=contents)
    solve(pool, _POLICY)


def _packages(data: bytes) -> None:
    _put("deb/Packages", data)
    _available(f"debian:{place()}/deb")


def _contents(data: bytes) -> None:
    _put("listed/Packages", _sound("packages/two"))
    _put("listed/Contents-amd64", data)
    pool = open_available([f"debian:{place()}/listed"], "x86_64", contents=True)
    for repository in pool.repositories:
        pool.contents(tuple(pool.packages.values()), repository.name)


def _repomd(parts: dict[str, bytes]) -> bytes:
    entries = "".join(
        f'<data type="{kind}"><checksum type="sha256">{hashlib.sha256(data).hexdigest()}</checksum>'
        f'<location href="repodata/{kind}.xml"/></data>'
        for kind, data in parts.items()
    )
    return f'<repomd xmlns="http://linux.duke.edu/metadata/repo">{entries}</repomd>'.encode()


@cache
def _sound(name: str) -> bytes:
    return (CORPUS / name).read_bytes()


def _repodata(kind: str, data: bytes) -> None:
    """A repository of rpm packages in which one file is `data`; the digests are right."""
    parts = {name: _sound(f"repodata-{name}/world") for name in ("primary", "filelists")}
    if kind != "repomd":
        parts[kind] = data
    for name, part in parts.items():
        _put(f"rpmmd/repodata/{name}.xml", part)
    _put("rpmmd/repodata/repomd.xml", data if kind == "repomd" else _repomd(parts))
    _available(f"rhel:{place()}/rpmmd", contents=kind == "filelists")


def _archive(data: bytes) -> None:
    _put("arch/made.db", data)
    _available(f"arch:{place()}/arch")


def _archived(data: bytes) -> None:
    """The text of a `desc`, in an archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        entry = tarfile.TarInfo("a-1-1/desc")
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
    _archive(out.getvalue())


# --- images ----------------------------------------------------------------------------------

_BLOCK = 512
_LIMITS = ImageLimits(names=1000, bytes=MIB)
_LAYER = tars.directory("d") + tars.file("d/a", b"abc") + tars.symlink("l", "d/a") + tars.END


def _with_checksums(data: bytes) -> bytes:
    """With right checksums of members' headers, since nothing else of a changed one is looked at."""
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)]
    return b"".join(
        tars.patched(block, 0, b"")
        if len(block) == _BLOCK and (not at or block[257:262] == b"ustar")
        else block
        for at, block in enumerate(blocks)
    )


def _image(data: bytes) -> None:
    """An archive of an image, and with right checksums: it is refused and leaves nothing, or it is whole."""
    for text in dict.fromkeys((data, _with_checksums(data))):
        with refusing(PkgjailError):
            _import(text)


def _import(data: bytes) -> None:
    """Import an archive; its export must be the same image."""
    archive, store = _put("images/archive", data), str(place() / "images/store")
    try:
        with mock.patch.object(tree, "ALWAYS", MIB):
            image = import_image(archive, "first", store=store, limits=_LIMITS)
        assert verify_image(image, SILENT) == ()
        exported = io.BytesIO()
        archive_image(image, exported)
        _put("images/archive", exported.getvalue())
        assert import_image(archive, "second", store=store).digest == image.digest
        remove_image(image.digest, store)
    finally:
        assert sorted(os.listdir(place() / "images")) == ["archive", "store"]
        assert set(os.listdir(store)) <= {"lock", "names"}, os.listdir(store)
        assert not os.path.exists(f"{store}/names") or not os.listdir(f"{store}/names")


def _oci(data: bytes) -> None:
    """The documents of a layout, a NUL between them: config, manifest, index. Their digests are right."""
    files = {f"blobs/sha256/{tars.digest(_LAYER)[7:]}": _LAYER, "oci-layout": b"{}"}
    written = {b"@layer": _LAYER}
    for name, text in zip((b"@config", b"@manifest", b"@index"), data.split(b"\0")):
        for mark, document in written.items():
            text = text.replace(mark, tars.digest(document).encode())  # noqa: PLW2901 - the same text
        written[name] = text
        files["index.json" if name == b"@index" else f"blobs/sha256/{tars.digest(text)[7:]}"] = text
    _import(tars.archive(files))


def _docker(data: bytes) -> None:
    """The documents of an archive of `docker save`, a NUL between them: config, manifest.json."""
    config, _, manifest = data.replace(b"@layer", tars.digest(_LAYER).encode()).partition(b"\0")
    _import(tars.archive({"manifest.json": manifest, f"{'0' * 64}.json": config, f"{'1' * 64}.tar": _LAYER}))


# --- files of a set, and what its programs say -----------------------------------------------


def _names(*paths: bytes) -> Names:
    return Names([FileEntry(path=path, kind="regular", mode=0o755) for path in paths])


def _elf(data: bytes) -> None:
    elf = read_elf(io.BytesIO(data))
    if elf is not None:
        names = _names(b"/bin/x")
        list(library_gaps(names, {b"/bin/x": elf}, LdSearch(names, {b"/bin/x": elf}, lambda _: b"")))


def _script(data: bytes) -> None:
    list(script_gaps(_names(b"/bin/x"), {b"/bin/x": data[:255].split(b"\n", 1)[0]}))


def _configuration(data: bytes) -> object:
    names = _names(b"/etc/ld.so.conf", b"/etc/ld.so.conf.d/a.conf")
    return LdSearch(names, {}, lambda _: data).configured_directories


class _SameAnswer:
    """A runner whose programs all give the same answer: standard output, a NUL, standard error."""

    def __init__(self, data: bytes) -> None:
        self._out, _, self._err = data.partition(b"\0")
        self._data = data
        self.last_program = b"/usr/bin/gcc"

    def run(self, argv: Sequence[str], stdin: bytes = b"") -> ProgramOutput:
        """As `check.runner.Runner`."""
        del argv, stdin
        return ProgramOutput(0, self._out, self._err)

    def read(self, place: bytes) -> bytes:
        """As `check.runner.Runner`."""
        del place
        return self._data


def _answer(data: bytes) -> None:
    """Read the answer of a compiler, a Python and a Perl of the set."""
    programs = (b"gcc", b"python3", b"perl", b"Rscript", b"ocaml", b"php", b"latex")
    names = _names(*(b"/usr/bin/" + program for program in programs), b"/usr/lib/libc.so")
    runner = _SameAnswer(data)
    list(catch_unanswered("compiler", compiler_gaps(names, runner), runner))
    list(catch_unanswered("module", python_gaps(names, runner), runner))
    list(catch_unanswered("module", perl_gaps(names, runner), runner))
    list(catch_unanswered("module", language_gaps(names, runner), runner))


TARGETS: dict[str, Target] = {
    "whitelist": Target(_whitelist, 2),
    "blacklist": Target(_blacklist, 2),
    "settings": Target(_settings, 2),
    "manifest": Target(_manifest, 2),
    "audit": Target(_audit, 2),
    "ld.so.cache": Target(_ld_cache),
    "environment": Target(_record, 2),
    "active": Target(_active, 1, ValueError),
    "dpkg-status": Target(partial(_database, "dpkg", "var/lib/dpkg/status", backends=("apt", "dpkg")), 2),
    "dpkg-list": Target(partial(_database, "dpkg", "var/lib/dpkg/info/a.list")),
    "dpkg-diversions": Target(partial(_database, "dpkg", "var/lib/dpkg/diversions")),
    "dpkg-md5sums": Target(partial(_database, "dpkg", "var/lib/dpkg/info/a.md5sums")),
    "alternatives": Target(partial(_database, "dpkg", "var/lib/dpkg/alternatives/awk")),
    "os-release": Target(partial(_database, "dpkg", "etc/os-release")),
    "release": Target(_release),
    "ucf": Target(_ucf),
    "jail-records": Target(_jail_records, 2),
    "pacman-desc": Target(partial(_database, "pacman", "var/lib/pacman/local/a-1-1/desc"), 2),
    "pacman-files": Target(partial(_database, "pacman", "var/lib/pacman/local/a-1-1/files")),
    "pacman-mtree": Target(_mtree),
    "rpm": Target(_rpm_answer, 2),
    "rpm-header": Target(_rpm_header, 2),
    "rpm-file": Target(_rpm_file),
    "rpm-macros": Target(_rpm_macros),
    "devices": Target(_devices),
    "packages": Target(_packages, 2),
    "contents": Target(_contents),
    "repodata-repomd": Target(partial(_repodata, "repomd")),
    "repodata-primary": Target(partial(_repodata, "primary"), 2),
    "repodata-filelists": Target(partial(_repodata, "filelists")),
    "repository-tar": Target(_archive),
    "repository-desc": Target(_archived),
    "image-archive": Target(_image, 2),
    "image-oci": Target(_oci),
    "image-docker": Target(_docker),
    "elf": Target(_elf, 4, DamagedError),
    "script": Target(_script),
    "ld.so.conf": Target(_configuration),
    "answer": Target(_answer),
}
