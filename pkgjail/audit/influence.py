"""Which of the source's packages change a build: it is run again with one more of those that it asked for."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pkgjail.api import resolve
from pkgjail.audit.differences import Comparison, compare
from pkgjail.audit.rebuild import Rebuilds, refuse_unequal, run_plainly
from pkgjail.audit.run import run_audited
from pkgjail.audit.wanted import wanted
from pkgjail.core.errors import PkgjailError, UsageError
from pkgjail.core.families import family_of
from pkgjail.core.given import path_bytes, words
from pkgjail.core.model import record
from pkgjail.core.paths import follow
from pkgjail.core.reporter import SILENT
from pkgjail.core.text import text_path
from pkgjail.manifest import dump_manifest, manifest_digest
from pkgjail.manifest.subset import has_package_database, merged
from pkgjail.policy import shipped_blacklists
from pkgjail.review.why import file_pattern, package_entry, toml_string
from pkgjail.storage.scratch import scratch

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pkgjail.audit.differences import Noise
    from pkgjail.audit.model import Audit, LookUp
    from pkgjail.audit.outputs import Outputs
    from pkgjail.audit.rebuild import Rebuilt
    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.storage.baseline import Publisher

Verdict = Literal["changed", "same", "untried"]

_NOTHING = Comparison(differences=())
_LIST = "influence.toml"


@record
class Trial:
    """What one package, or one path of no package, does to a build.

    `package` is its key, or "" for a path of no package. `paths` are those that the build asked for, the most
    telling first, and `added` the packages that came with it. `through` is another package of these, tried
    too, that alone has the same effect. `why` says why it could not be tried.
    """

    package: str
    paths: tuple[bytes, ...]
    verdict: Verdict
    comparison: Comparison = _NOTHING
    added: tuple[str, ...] = ()
    through: str = ""
    why: str = ""


@record
class Influence:
    """What packages of the source do to a build: a trial for each, the most telling first.

    `status` is the build's exit status as it is. `left_out` counts those beyond the limit, and `runs` the
    builds.
    """

    status: int
    trials: tuple[Trial, ...]
    left_out: int
    runs: int


class _Candidate(NamedTuple):
    """A package, or a path of no package, with what the build asked for of it."""

    package: str
    look_ups: tuple[LookUp, ...] = ()
    path: bytes = b""

    @property
    def paths(self) -> tuple[bytes, ...]:
        return tuple(look_up.path for look_up in self.look_ups) or ((self.path,) if self.path else ())


def find_influence(  # noqa: PLR0913 - all but four by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None,
    output: AnyPath,
    *,
    audit: Audit | None = None,
    packages: Iterable[str] = (),
    limit: int | None = None,
    jobs: int = 1,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    reporter: Reporter = SILENT,
) -> Influence:
    """Run a build again with each package that it asked for and did not get, and say what that changes.

    First it is run twice as it is: what differs then is noise and does not count. Each run has its own copy
    of what `options` bind writable.

    Args:
        manifest: what the jail has.
        argv: the command.
        options: as for `run_in_jail`; one of the writable binds must have the outputs.
        output: the directory that the build puts its outputs in, on the host or inside.
        audit: an audit of this command with this manifest; None to make one with the first run.
        packages: try these alone, also if the build did not ask for them: names or keys of packages, or
            absolute paths that no package has.
        limit: try at most so many; None for all.
        jobs: the most runs at a time.
        root: the directory that the manifest was made from.
        publisher: as for `run_in_jail`.
        reporter: receives progress.

    Raises:
        UsageError: no writable bind has `output`, or the audit is of another manifest.
        PkgjailError: two equal runs end differently, or put nothing out.
        DriftError, JailError: as `run_in_jail`.

    """
    argv = words(argv, "argv")
    output = path_bytes(output, "output")
    packages = words(packages, "packages")
    root = path_bytes(root, "root")
    if audit is not None and audit.manifest != manifest_digest(dump_manifest(manifest)):
        raise UsageError("cannot use the audit: it is of another manifest; make one with this one")
    through = run_plainly if audit else run_audited
    with Rebuilds(argv, options, output, root=root, publisher=publisher) as rebuilds:
        reporter.progress("building", 0, 2)
        first, second, noise = rebuilds.run_twice(manifest, through)
        refuse_unequal(first, second)
        reporter.progress("building", 2, 2)
        found = audit or first.audit
        candidates = _candidates(found, packages) if found else []
        chosen = candidates if limit is None else candidates[:limit]
        maker = _Maker(manifest, root)
        builds = rebuilds.run_all(maker.manifests(chosen), jobs)
        built: dict[int, Rebuilt] = {}
        for number, one in builds:
            built[number] = one
            reporter.progress("building with one package more", len(built) + len(maker.untried), len(chosen))
    outputs = {number: built[place].outputs for place, number in enumerate(maker.added)}
    compared = {number: compare(first.outputs, each, noise) for number, each in outputs.items()}
    trials = [_trial(number, each, maker, compared) for number, each in enumerate(chosen)]
    return Influence(
        status=first.status,
        trials=_attributed(trials, outputs, noise),
        left_out=len(candidates) - len(chosen),
        runs=2 + len(built),
    )


def _trial(number: int, candidate: _Candidate, maker: _Maker, compared: Mapping[int, Comparison]) -> Trial:
    """Return what came of a candidate, by its number."""
    if number not in compared:
        why = maker.untried[number]
        return Trial(package=candidate.package, paths=candidate.paths, verdict="untried", why=why)
    return Trial(
        package=candidate.package,
        paths=candidate.paths,
        verdict="same" if compared[number].is_same else "changed",
        comparison=compared[number],
        added=maker.added[number],
    )


def _attributed(trials: Sequence[Trial], outputs: Mapping[int, Outputs], noise: Noise) -> tuple[Trial, ...]:
    """Return the trials, with those whose effect another package has alone that comes with theirs."""
    keys = {trial.package: number for number, trial in enumerate(trials) if trial.verdict == "changed"}
    found = []
    for number, trial in enumerate(trials):
        within = [key for key in trial.added if keys.get(key, number) != number]
        same = [key for key in within if compare(outputs[keys[key]], outputs[number], noise).is_same]
        if trial.verdict == "changed" and same:
            smallest = min(same, key=lambda key: (len(trials[keys[key]].added), key))
            found.append(replace(trial, verdict="same", through=smallest))
        else:
            found.append(trial)
    return tuple(found)


def _candidates(audit: Audit, names: Sequence[str]) -> list[_Candidate]:
    """Return what to try: each package as a whole, and each path of none; those that `names` name, if any."""
    found: list[_Candidate] = []
    for each in wanted(audit):
        if each.package:
            found.append(_Candidate(each.package, each.look_ups))
        else:
            found += [_Candidate("", (look_up,)) for look_up in each.look_ups]
    if not names:
        return found
    chosen: list[_Candidate] = []
    for name in names:
        named = [one for one in found if _is_named(one, name)]
        path = os.fsencode(name)
        chosen += named or [_Candidate("", path=path) if name.startswith("/") else _Candidate(name)]
    return chosen


def _is_named(candidate: _Candidate, name: str) -> bool:
    if name.startswith("/"):
        return not candidate.package and os.fsencode(name) in candidate.paths
    return name in {candidate.package, candidate.package.rpartition(":")[0]}


class _Maker:
    """Makes the manifests with one candidate more.

    By the candidates' numbers, `added` has the packages of those that were made, in their order, and
    `untried` why others could not be made.
    """

    def __init__(self, manifest: Manifest, root: bytes) -> None:
        self.untried: dict[int, str] = {}
        self.added: dict[int, tuple[str, ...]] = {}
        self._manifest = manifest
        self._source = root
        self._root = root.rstrip(b"/")
        self._keys = frozenset(package.key for package in manifest.packages)
        self._hashed = any(entry.sha256 for entry in manifest.files)

    def manifests(self, candidates: Sequence[_Candidate]) -> Iterator[Manifest]:
        """Yield a manifest for each candidate that can be tried."""
        for number, candidate in enumerate(candidates):
            try:
                made = self._with(candidate)
            except (OSError, PkgjailError) as error:
                self.untried[number] = str(error)
                continue
            if why := self._fault(candidate, made):
                self.untried[number] = why
                continue
            added = tuple(package.key for package in made.packages if package.key not in self._keys)
            self.added[number] = added
            yield made

    def _with(self, candidate: _Candidate) -> Manifest:
        """Return the manifest with a candidate, and with what a blacklist hid of it."""
        header = self._manifest.header
        hidden = {look_up.path for look_up in candidate.look_ups if look_up.rule}
        known = () if hidden else [name for name in header.blacklists if name in shipped_blacklists()]
        with scratch("influence") as place:
            path = f"{place}/{_LIST}"
            Path(path).write_text(self._list(candidate), encoding="utf-8")
            extra = resolve(
                [path],
                known,
                root=self._source,
                recommends=False,
                essential=header.essential,
                package_database=has_package_database(self._manifest),
                hashed=self._hashed,
                allow_unmet=True,
                baseline=False,
            )
        dropped = tuple(one for one in self._manifest.dropped if one.path not in hidden)
        return merged(replace(self._manifest, dropped=dropped), extra)

    def _list(self, candidate: _Candidate) -> str:
        """Return a whitelist of the candidate alone."""
        header = self._manifest.header
        if candidate.package:
            is_key = ":" in candidate.package
            entry = package_entry(candidate.package, header.architecture) if is_key else candidate.package
            return f"[packages]\n{family_of(header.distribution)} = [{toml_string(entry)}]\n"
        patterns = [pattern for path in candidate.paths for pattern in self._patterns(path)]
        if not all(patterns):
            raise UsageError("a whitelist cannot name it: its name is not UTF-8")
        return f"[files]\ninclude = [{', '.join(map(toml_string, patterns))}]\n"

    def _patterns(self, path: bytes) -> Iterator[str]:
        """Yield what brings a path: all that is in a directory, and what a link leads to."""
        yield from map(file_pattern, dict.fromkeys((path, follow(path, self._link))))

    def _link(self, path: bytes) -> bytes | None:
        """Return the text of a link of the source; None for anything else."""
        try:
            return os.readlink(self._root + path)
        except OSError:
            return None

    def _fault(self, candidate: _Candidate, made: Manifest) -> str:
        """Return why a manifest tells nothing about a candidate, or ""."""
        if made.files == self._manifest.files:
            return "the manifest has all of it"
        paths = candidate.paths
        if paths and frozenset(paths).isdisjoint(entry.path for entry in made.files):
            return f"it does not bring {text_path(paths[0])} into a jail"
        return ""
