"""The roots of a manifest that a build needs: others are taken away as long as it puts out the same.

The search is delta debugging (A. Zeller, R. Hildebrandt, "Simplifying and isolating failure-inducing input",
2002) over the entries of the whitelists. It begins with guesses: the smallest roots that bring every package
of which the audited build opened or executed a file, or asked for one. A build that fails without some roots
counts as failed without these and others, too.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pkgjail.audit.differences import compare
from pkgjail.audit.rebuild import Rebuilds, refuse_unequal
from pkgjail.audit.run import run_audited
from pkgjail.audit.step_log import Base, Step, StepLog
from pkgjail.audit.wanted import used, used_files
from pkgjail.core.errors import PkgjailError
from pkgjail.core.given import path_bytes, words
from pkgjail.core.model import record
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import counted, text_path
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.manifest.subset import Root, packages_below, whitelist_roots, without_roots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pkgjail.audit.model import Audit
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Publisher

_OPENING = frozenset({"exec", "open"})


@record
class Minimal:
    """The result: `manifest` has the roots `kept`, of which none can go, and not those `removed`.

    `steps` are all tries that needed a build, those of an earlier run too, and `runs` the builds of this one.
    """

    manifest: Manifest
    kept: tuple[Root, ...]
    removed: tuple[Root, ...]
    steps: tuple[Step, ...]
    runs: int


def minimise(  # noqa: PLR0913 - all but four by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None,
    output: AnyPath,
    *,
    jobs: int = 1,
    state: str | None = None,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    reporter: Reporter = SILENT,
) -> Minimal:
    """Take away roots of a manifest as long as a build puts out the same, until no single one can go.

    For each root that is left there was a build without it, and without roots that have gone, that put out
    something else. If it ended with another status, it may have had some of these: a build that fails for
    want of a package is not run again with even less.

    First the build is run twice as it is: what differs then is noise. Each run has its own copy of what
    `options` bind writable. Files that a whitelist includes, and the base set, stay.

    Args:
        manifest: what the jail has.
        argv: the command.
        options: as for `run_in_jail`; one of the writable binds must have the outputs.
        output: the directory that the build puts its outputs in, on the host or inside.
        jobs: the most runs at a time.
        state: a file that gets a line for each step. Builds that it has of the same search are not repeated.
        root: the directory that the manifest was made from.
        publisher: as for `run_in_jail`.
        reporter: receives progress.

    Raises:
        UsageError: no writable bind has `output`, or the state is of another search, or in use.
        InputError: the state is damaged.
        PkgjailError: the build fails, or two equal runs end differently or put nothing out.
        DriftError, JailError: as `run_in_jail`.

    """
    argv = words(argv, "argv")
    output = path_bytes(output, "output")
    root = path_bytes(root, "root")
    with Rebuilds(argv, options, output, root=root, publisher=publisher) as rebuilds:
        header = {
            "manifest": manifest_digest(dump_manifest(manifest)),
            "command": list(argv),
            "output": text_path(output),
            "start": rebuilds.start_digest(),
        }
        with StepLog(state, header) as log:
            search = _Search(manifest, rebuilds, log, jobs, reporter)
            removed = search.run()
    roots = whitelist_roots(manifest)
    return Minimal(
        manifest=without_roots(manifest, removed),
        kept=tuple(each for each in roots if each not in removed),
        removed=tuple(each for each in roots if each in removed),
        steps=tuple(log.steps),
        runs=search.runs,
    )


class _Search:
    """One search. A set of packages is never built a second time."""

    def __init__(
        self, manifest: Manifest, rebuilds: Rebuilds, log: StepLog, jobs: int, reporter: Reporter
    ) -> None:
        self.runs = 0
        self._manifest = manifest
        self._rebuilds = rebuilds
        self._log = log
        self._jobs = jobs
        self._reporter = reporter
        self._decided = {step.packages: step.accepted for step in log.steps}
        self._decided[_digest_of_packages(manifest)] = True
        self._failed = [frozenset(step.without) for step in log.steps if _fails(step)]
        self._removed: frozenset[Root] = frozenset()

    def run(self) -> frozenset[Root]:
        """Return the roots that can go."""
        base = self._log.base or self._build_base()
        roots = whitelist_roots(self._manifest)
        guesses = [_not_covering(self._manifest, roots, keys) for keys in (base.opened, base.used)]
        for guess in dict.fromkeys((*guesses, _unused(self._manifest, roots, base.used))):
            if guess and self._try([guess])[0]:
                self._removed = guess
                break
        # If the guess was right, probably no other root can go, and each is tried alone at once.
        self._reduce(at_once=bool(self._removed))
        return self._removed

    def _build_base(self) -> Base:
        self._reporter.progress("building", 0, 2)
        first, second, noise = self._rebuilds.run_twice(self._manifest, run_audited)
        self.runs += 2
        refuse_unequal(first, second)
        if first.status or first.audit is None:
            raise PkgjailError(
                f"cannot take packages away: the build as it is ends with status {first.status}; mend it"
            )
        self._reporter.progress("building", 2, 2)
        base = Base(
            outputs=first.outputs,
            noise=noise,
            used=used(first.audit, self._manifest).packages,
            opened=_opened(first.audit),
        )
        self._log.add_base(base)
        return base

    def _reduce(self, *, at_once: bool) -> None:
        """Take away parts of the roots, ever smaller ones, until no single root can go."""
        left = self._left()
        parts = len(left) if at_once else 2
        while left:
            parts = min(parts, len(left))
            chunks = list(_chunks(left, parts))
            accepted = [chunk for chunk, ok in zip(chunks, self._try(chunks)) if ok]
            if accepted:
                self._remove(accepted)
                left = self._left()
            elif parts == len(left):
                return
            else:
                parts *= 2

    def _left(self) -> list[Root]:
        """Return the roots that are left, those that bring most first."""
        left = [each for each in whitelist_roots(self._manifest) if each not in self._removed]
        return sorted(left, key=lambda each: (-len(packages_below(self._manifest, {each})), each))

    def _remove(self, chunks: Sequence[frozenset[Root]]) -> None:
        """Take away chunks that can go one by one: all at once if they can, otherwise as many as can."""
        together = frozenset[Root]().union(*chunks)
        if len(chunks) > 1 and self._try([together])[0]:
            chunks = [together]
        for chunk in chunks:
            if self._try([chunk])[0]:
                self._removed |= chunk

    def _try(self, chunks: Sequence[frozenset[Root]]) -> list[bool]:
        """Return for each of some sets of roots whether it can go besides those that have gone."""
        made: dict[str, tuple[Manifest, frozenset[Root]]] = {}
        digests = []
        for chunk in chunks:
            manifest = without_roots(self._manifest, self._removed | chunk)
            digest = _digest_of_packages(manifest)
            digests.append(digest)
            if any(failed <= self._removed | chunk for failed in self._failed):
                self._decided.setdefault(digest, False)
            if digest not in self._decided:
                made.setdefault(digest, (manifest, self._removed | chunk))
        self._build([(digest, *each) for digest, each in made.items()])
        return [self._decided[digest] for digest in digests]

    def _build(self, tries: Sequence[tuple[str, Manifest, frozenset[Root]]]) -> None:
        """Build with each of these manifests, and decide."""
        base = self._log.base
        if not tries or base is None:
            return
        task = f"building without {counted(len(tries[0][2]), 'line')}"
        self._reporter.progress(task, 0, len(tries))
        builds = self._rebuilds.run_all((manifest for _, manifest, _ in tries), self._jobs)
        for done, (number, built) in enumerate(builds, 1):
            digest, _, without = tries[number]
            found = compare(base.outputs, built.outputs, base.noise)
            why = None if found.is_same else found.differences[0]
            step = Step(packages=digest, without=tuple(sorted(without)), accepted=found.is_same, why=why)
            self._log.add_step(step)
            self._decided[digest] = step.accepted
            self._failed += [without] if _fails(step) else []
            self.runs += 1
            self._reporter.progress(task, done, len(tries))


def _fails(step: Step) -> bool:
    """Return whether the build ended with another status."""
    return step.why is not None and step.why.kind == "status"


def _chunks(items: Sequence[Root], parts: int) -> Iterator[frozenset[Root]]:
    """Yield as many parts of nearly equal size."""
    for number in range(parts):
        yield frozenset(items[number * len(items) // parts : (number + 1) * len(items) // parts])


def _digest_of_packages(manifest: Manifest) -> str:
    text = "\n".join(package.key for package in manifest.packages)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _opened(audit: Audit) -> tuple[str, ...]:
    """Return the packages of which a build opened or executed a file."""
    files = [look_up for look_up in used_files(audit) if not _OPENING.isdisjoint(look_up.calls)]
    return tuple(sorted({owner for look_up in files for owner in look_up.owners}))


def _unused(manifest: Manifest, roots: Sequence[Root], wanted: Sequence[str]) -> frozenset[Root]:
    """Return the roots that bring none of the packages that the build used."""
    return frozenset(each for each in roots if packages_below(manifest, {each}).isdisjoint(wanted))


def _not_covering(manifest: Manifest, roots: Sequence[Root], wanted: Sequence[str]) -> frozenset[Root]:
    """Return the roots without which the others still bring every used package; the largest go first."""
    below = {each: packages_below(manifest, {each}) for each in roots}
    needed = frozenset(wanted) & packages_below(manifest, roots) - _of_base_set(manifest)
    kept = dict(below)
    for each in sorted(roots, key=lambda one: (-len(below[one]), one)):
        others = frozenset[str]().union(*(below[one] for one in kept if one != each))
        if needed <= others:
            del kept[each]
    return frozenset(roots).difference(kept)


def _of_base_set(manifest: Manifest) -> frozenset[str]:
    """Return the packages that stay without any root."""
    less = without_roots(manifest, whitelist_roots(manifest))
    return frozenset(package.key for package in less.packages)
