"""The default stage: the jail, made of namespaces by pkgjail itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pkgjail.jails.causes import find_cause
from pkgjail.jails.diagnosis import explain
from pkgjail.jails.host_name import host_name
from pkgjail.jails.run import prepare_jail
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import try_out
from pkgjail.sandbox.steps import assemble
from pkgjail.stages.model import Promise, promises_of_jail
from pkgjail.stages.trial import trial_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.jails.causes import Cause
    from pkgjail.stages.model import Property, Request


class Namespaces:
    """A jail of user, mount, PID and other namespaces, without root and without any other program."""

    name = "namespaces"
    summary = "pkgjail's own jail; no root, no other program"

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        return promises_of_jail()

    def obstacle(self) -> str:
        """Return why there can be no jail here, or ""."""
        cause = self.cause()
        return explain(cause) if cause else ""

    def cause(self) -> Cause | None:
        """Return the same as data, or None."""
        try:
            try_out(assemble(trial_plan(host_name())))
        except SetupError as failure:
            return find_cause(failure)
        return None

    def run(self, request: Request) -> int:
        """Run the command in a jail."""
        jail = prepare_jail(
            request.manifest,
            request.options,
            root=request.root,
            publisher=request.publisher,
            reporter=request.reporter,
        )
        return jail.enter(request.argv, terminal=request.terminal)
