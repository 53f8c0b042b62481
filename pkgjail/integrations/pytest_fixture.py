"""The fixture `pkgjail_jail`: jails for the tests of other projects, wherever pkgjail is installed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.jails.run import Jail


@pytest.fixture(scope="session")
def _pkgjail_manifests() -> dict[str, Manifest]:
    """The manifests that were made in this session, by the names that they were made from."""
    return {}


@pytest.fixture
def pkgjail_jail(_pkgjail_manifests: dict[str, Manifest]) -> Iterator[Callable[..., Jail]]:
    """Give a function that makes jails, with the arguments of `pkgjail.jail`.

    A manifest of shipped lists and packages is made once in a session. Files may change from test to test, so
    they are read each time. Each jail is closed when the test ends.
    """
    # Imported only if needed: pytest loads this module wherever pkgjail is installed.
    from pkgjail.jails.open import jail, manifest_of

    def manifest(
        what: Any, packages: Iterable[str], blacklists: Iterable[AnyPath], root: AnyPath
    ) -> Manifest:
        lists = [what] if isinstance(what, str) else what
        if not all(isinstance(names, (list, tuple)) for names in (lists, packages, blacklists)):
            return manifest_of(what, packages, blacklists, root)
        if not all(isinstance(name, str) and name.isidentifier() for name in (*lists, *blacklists)):
            return manifest_of(what, packages, blacklists, root)
        key = repr((lists, packages, blacklists, root))
        if key not in _pkgjail_manifests:
            _pkgjail_manifests[key] = manifest_of(what, packages, blacklists, root)
        return _pkgjail_manifests[key]

    with ExitStack() as jails:

        def make(
            what: AnyPath | Manifest | Iterable[AnyPath] = (),
            *,
            packages: Iterable[str] = (),
            blacklists: Iterable[AnyPath] = (),
            root: AnyPath = b"/",
            **options: Any,
        ) -> Jail:
            """Return a jail, as `pkgjail.jail` does."""
            made = manifest(what, packages, blacklists, root)
            return jails.enter_context(jail(made, root=root, **options))

        yield make
