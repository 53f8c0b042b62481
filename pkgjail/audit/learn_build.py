"""Learn the whitelist of a build, and check it: the build runs again in a fresh jail of the list."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from pkgjail.api import resolve
from pkgjail.audit.differences import Comparison, compare
from pkgjail.audit.learn import everything, learn, missed, whitelist_text
from pkgjail.audit.outputs import Outputs
from pkgjail.audit.rebuild import Rebuilds, Rebuilt
from pkgjail.audit.run import run_audited
from pkgjail.core.errors import PkgjailError
from pkgjail.core.given import list_names, path_bytes, words
from pkgjail.core.reporter import SILENT
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pkgjail.audit.learn import Learned
    from pkgjail.audit.model import Audit
    from pkgjail.audit.spack_names import SpackNames
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Publisher

_ROUNDS = 4


class LearnedBuild(NamedTuple):
    """A learned whitelist, the run that it was learned from, and the last run with it.

    `checked` is None if the list was not checked, `packages` counts those of its jail, and `comparison` is
    that of the outputs of both runs: without a writable bind there are none. What differs from run to run,
    such as times, is among the differences.
    """

    learned: Learned
    first: Rebuilt
    checked: Rebuilt | None = None
    packages: int = 0
    comparison: Comparison = Comparison(differences=())

    @property
    def is_right(self) -> bool:
        """Return whether the build ended alike with the list, or was not checked."""
        return self.checked is None or self.checked.status == self.first.status


def learn_build(  # noqa: PLR0913 - two by position
    argv: Iterable[AnyPath],
    options: JailOptions,
    *,
    manifest: Manifest | None = None,
    base: Iterable[AnyPath] = (),
    blacklists: Iterable[AnyPath] = (),
    names: SpackNames | None = None,
    check: bool = True,
    root: AnyPath = b"/",
    backend: str = "auto",
    publisher: Publisher | None = None,
    reporter: Reporter = SILENT,
) -> LearnedBuild:
    """Run a command with everything that the source has, learn the whitelist that it needs, and check that.

    Each run has its own copies of the writable binds: the user's files stay as they are. If the command ends
    otherwise with the list, packages that the run lacked are added, at most three times.

    Args:
        argv: the command.
        options: those of its jails.
        manifest: the first jail's; None for `everything`.
        base: whitelists that the result includes.
        blacklists: what they drop is in none of the jails.
        names: packages of other families; None for none.
        check: run the command with the list.
        root: the source's root directory.
        backend: "auto", or a backend by name.
        publisher: as for `run_in_jail`.
        reporter: receives progress and warnings.

    Raises:
        PolicyError, DatabaseError, OSError: as `pkgjail.resolve`.
        JailError, CommandError: as `pkgjail.audit.run.run_audited`.

    """
    argv = words(argv, "argv")
    base = list_names(base, "base")
    blacklists = list_names(blacklists, "blacklists")
    root = path_bytes(root, "root")
    if manifest is None:
        manifest = everything(blacklists, root=root, backend=backend, reporter=reporter)
    also: tuple[str, ...] = ()
    with _builds(argv, options, root, publisher, reporter) as build:
        first = build(manifest)
        seen = _audit_of(first)
        result = LearnedBuild(
            learn(seen, manifest, base=base, names=names, root=root, backend=backend), first
        )
        for _ in range(_ROUNDS if check else 0):
            fresh = _resolve(result.learned, blacklists, root, backend)
            checked = build(fresh)
            compared = compare(first.outputs, checked.outputs)
            result = LearnedBuild(result.learned, first, checked, len(fresh.packages), compared)
            more = () if result.is_right else missed(seen, _audit_of(checked), root, backend)
            if set(more) <= set(also):
                break
            also = tuple(sorted({*also, *more}))
            learned = learn(seen, manifest, base=base, names=names, root=root, backend=backend, also=also)
            result = result._replace(learned=learned)
    return result


@contextmanager
def _builds(
    argv: Sequence[str], options: JailOptions, root: bytes, publisher: Publisher | None, reporter: Reporter
) -> Iterator[Callable[[Manifest], Rebuilt]]:
    """Yield a function that runs the command in the jail of a manifest, with copies of writable binds."""
    writable = [bind for bind in options.binds if bind.writable]
    if not writable:
        yield lambda manifest: _run_once(manifest, argv, options, root, publisher)
        return
    place = writable[-1].source
    with Rebuilds(argv, options, place, root=root, publisher=publisher, reporter=reporter) as rebuilds:
        yield lambda manifest: rebuilds.run(manifest, run_audited)


def _run_once(
    manifest: Manifest, argv: Sequence[str], options: JailOptions, root: bytes, publisher: Publisher | None
) -> Rebuilt:
    audit = run_audited(manifest, argv, options, root=root, publisher=publisher)
    return Rebuilt(audit.status, Outputs(status=audit.status, files={}), b"", audit=audit)


def _audit_of(built: Rebuilt) -> Audit:
    if built.audit is None:
        raise PkgjailError(f"cannot learn from the command: {built.error}")
    return built.audit


def _resolve(learned: Learned, blacklists: Sequence[str], root: bytes, backend: str) -> Manifest:
    """Resolve a learned whitelist, as the user will from its file."""
    with scratch("learn") as place:
        path = os.path.join(place, "learned.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(whitelist_text(learned))
        return resolve([path], blacklists, root=root, backend=backend, hashed=False, baseline=False)
