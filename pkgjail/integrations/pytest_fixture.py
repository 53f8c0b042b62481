"""The fixture `pkgjail_jail`: jails for the tests of other projects, wherever pkgjail is installed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from typing import Any, Protocol

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import UserBind
    from pkgjail.jails.run import Jail

    class MakeJail(Protocol):
        """What the fixture gives: as `pkgjail.jail`."""

        def __call__(  # noqa: PLR0913 - all but one by keyword
            self,
            what: AnyPath | Manifest | Iterable[AnyPath] = (),
            *,
            packages: Iterable[str] = (),
            blacklists: Iterable[AnyPath] = (),
            binds: Iterable[AnyPath | UserBind] = (),
            cwd: AnyPath = b"/",
            network: bool = True,
            env: Mapping[str, str] | None = None,
            root: AnyPath = b"/",
        ) -> Jail:
            """Return a jail; it is closed when the test ends."""
            ...


@pytest.fixture(scope="session")
def _pkgjail_manifests() -> dict[str, Manifest]:
    """The manifests that were made in this session, by what they were made from."""
    return {}


@pytest.fixture
def pkgjail_jail(_pkgjail_manifests: dict[str, Manifest]) -> Iterator[MakeJail]:
    """Give a function that makes jails, with the arguments of `pkgjail.jail`.

    A manifest is made once in a session for the same lists and packages. Each jail is closed when the test
    ends.
    """
    # Imported only if needed: pytest loads this module wherever pkgjail is installed.
    from pkgjail.core.model import Manifest
    from pkgjail.jails.open import jail, manifest_of

    with ExitStack() as jails:

        def make(
            what: AnyPath | Manifest | Iterable[AnyPath] = (),
            *,
            packages: Iterable[str] = (),
            blacklists: Iterable[AnyPath] = (),
            root: AnyPath = b"/",
            **options: Any,
        ) -> Jail:
            if not isinstance(what, Manifest):
                packages, blacklists = list(packages), list(blacklists)
                key = repr((what, packages, blacklists, root))
                if key not in _pkgjail_manifests:
                    _pkgjail_manifests[key] = manifest_of(what, packages, blacklists, root)
                what = _pkgjail_manifests[key]
            return jails.enter_context(jail(what, root=root, **options))

        yield make
