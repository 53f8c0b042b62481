"""The stage of root: the default jail without a user namespace, with the rights of the user who asked."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pkgjail.core.architectures import is_host_word
from pkgjail.core.errors import JailError, PkgjailError
from pkgjail.jails.as_user import find_user, run_as_user
from pkgjail.jails.causes import find_cause
from pkgjail.jails.diagnosis import explain
from pkgjail.jails.host_name import host_name
from pkgjail.jails.run import default_environment, prepare_jail
from pkgjail.sandbox.job import SetupError
from pkgjail.sandbox.launch import try_out
from pkgjail.sandbox.steps import NoUserNamespace, assemble
from pkgjail.stages.model import Promise, RefusedError, asked_for, promises_of_jail, refusals
from pkgjail.stages.trial import trial_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.stages.model import Property, Request


class Root:
    """A jail as the default one, made by root where users may not have user namespaces."""

    name = "root"
    summary = "pkgjail's own jail, made by root for the user who called sudo"

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        kept = promises_of_jail()
        kept["map-root"] = Promise(kept=False, note="it takes a user namespace, and this jail has none")
        kept["user"] = Promise(kept=True, note="and all groups; the command cannot make user namespaces")
        return kept

    def obstacle(self) -> str:
        """Return why root cannot make a jail here, or ""."""
        if os.geteuid():
            return "only root may do this: use sudo"
        try:
            run_as_user(find_user(), _try_out)
        except PkgjailError as error:
            return str(error)
        return ""

    def run(self, request: Request) -> int:
        """Run the command in a jail, with the rights and the ids of `Request.user`."""
        if os.geteuid():
            raise RefusedError(self.name, ["anything for a user who is not root; use sudo"])
        problems = refusals(self.promises(), asked_for(request))
        if not is_host_word(architecture := request.manifest.header.architecture):
            problems.append(f"programs of another architecture, {architecture}")
        if problems:
            raise RefusedError(self.name, problems)
        callers = default_environment()
        return run_as_user(find_user(request.user), lambda: _run(request, callers))


def _run(request: Request, callers: Mapping[str, str]) -> int:
    """In the user's process: run the command. What is root's default, such as HOME, becomes the user's."""
    own = default_environment()
    given = request.options.environment
    environment = {
        name: own.get(name, value) if callers.get(name) == value else value for name, value in given.items()
    }
    jail = prepare_jail(
        request.manifest,
        replace(request.options, user_namespace=False, environment=environment),
        root=request.root,
        publisher=request.publisher,
        reporter=request.reporter,
    )
    return jail.enter(request.argv, terminal=request.terminal)


def _try_out() -> int:
    plan = trial_plan(host_name(user_namespace=False))
    try:
        try_out(assemble(plan._replace(steps=(NoUserNamespace(), *plan.steps))))
    except SetupError as failure:
        raise JailError(explain(find_cause(failure))) from failure
    return 0
