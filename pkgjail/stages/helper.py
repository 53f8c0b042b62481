"""The stage of pkgjaild, a service of root's that makes jails where users have no user namespaces."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pkgjail.core.architectures import is_host_word
from pkgjail.core.errors import PkgjailError
from pkgjail.helper.client import ask_status, run_by_service
from pkgjail.helper.wishes import Wish
from pkgjail.stages.model import Promise, RefusedError, asked_for, promises_of_jail, refusals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.stages.model import Property, Request

_POLICY = "as far as the administrator allows it in /etc/pkgjaild.toml"


class Helper:
    """A jail as strict as the default one, made by pkgjaild with the rights and ids of the user who asks."""

    name = "helper"
    summary = "pkgjaild, a service of root's that makes the jail"

    def promises(self) -> Mapping[Property, Promise]:
        """Return what it promises."""
        kept = promises_of_jail()
        kept["map-root"] = Promise(kept=False, note="other ids take a user namespace")
        kept["limits"] = Promise(
            kept=False, note="the jail is in your own control group, whose limits apply to it"
        )
        kept["user"] = Promise(kept=True, note="and all groups; the command cannot make user namespaces")
        kept["devices"] = kept["ipc"] = kept["drift"] = Promise(kept=True, note=_POLICY)
        return kept

    def obstacle(self) -> str:
        """Return why the service makes no jail for this user, or ""; it is asked."""
        try:
            ask_status()
        except PkgjailError as error:
            return str(error)
        return ""

    def run(self, request: Request) -> int:
        """Let the service run the command."""
        problems = refusals(self.promises(), asked_for(request))
        if not is_host_word(architecture := request.manifest.header.architecture):
            problems.append(f"programs of another architecture, {architecture}")
        if problems:
            raise RefusedError(self.name, problems)
        # The service has another working directory.
        root = os.path.abspath(request.root)
        wish = Wish(argv=request.argv, options=request.options, root=root)
        return run_by_service(request.manifest, wish, terminal=request.terminal, reporter=request.reporter)
