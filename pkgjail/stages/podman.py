"""The stage of podman, podman-run(1). It takes the user's own settings of podman, as the OCI runtime."""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import ROOT_CAPABILITY_NAMES
from pkgjail.export.image.bundle import hidden_paths
from pkgjail.stages.engine import GOES_ON, PROCESS_ONE, Engine, Started, check_texts
from pkgjail.stages.model import Promise, RefusedError
from pkgjail.stages.seccomp_profile import seccomp_profile
from pkgjail.storage.mounts import mounts_below

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pkgjail.stages.container import Container, Mount
    from pkgjail.stages.model import Property

# The fields of --mount are CSV.
_FORBIDDEN = ',"\n'
_VARIABLES, _PROFILE, _ID = "variables", "seccomp.json", "id"
_FLAGS = (
    "--rm", "--interactive", "--read-only", "--read-only-tmpfs=false", "--no-hosts", "--unsetenv-all",
    "--http-proxy=false", "--cap-drop=all", "--security-opt=no-new-privileges",
    "--security-opt=label=disable", "--log-driver=none", "--detach-keys=",
)  # fmt: skip


class Podman(Engine):
    """Containers of podman, of root or of a user with subordinate ids."""

    name = "podman"
    summary = "podman, with the runtime of its settings"
    program = "podman"
    package = "podman"

    def differences(self) -> Mapping[Property, Promise]:
        """Return what differs from other engines."""
        user = bool(os.geteuid())
        return {
            "exact": Promise(
                kept=False, note="podman adds /etc/hostname, /etc/mtab and /run/.containerenv, and a /dev/shm"
            ),
            "variables": Promise(kept=False, note="podman adds HOSTNAME"),
            "map-root": Promise(kept=user, note="" if user else "root's user 0 would be the host's"),
            "signals": Promise(kept=False, note=PROCESS_ONE),
            "ends": Promise(kept=False, note=GOES_ON),
        }

    @contextlib.contextmanager
    def started(self, container: Container) -> Iterator[Started]:
        """Write the variables and the filter to files: others can read a command line."""
        check_texts(self, container, forbidden=_FORBIDDEN, lines=False)
        self._refuse_inner_mounts(container)
        with open(self._file(container, _VARIABLES), "x", encoding="utf-8") as file:
            file.writelines(f"{name}={value}\n" for name, value in container.environment)
        with open(self._file(container, _PROFILE), "x", encoding="utf-8") as file:
            json.dump(seccomp_profile(keep_names=container.keep_names), file)
        yield Started((self._path(), "run", *self._options(container), *container.argv), os.environ)

    def leftover(self, container: Container) -> tuple[str, ...]:
        """Return the command that removes the container, if there is one."""
        if not os.path.lexists(self._file(container, _ID)):
            return ()
        return (self._path(), "rm", "--force", "--ignore", "--time=0", container.name)

    def _options(self, container: Container) -> Iterator[str]:
        yield from _FLAGS
        if container.terminal:
            yield "--tty"
        if os.geteuid() and not container.as_root:
            yield "--userns=keep-id"
        if container.as_root:
            yield f"--cap-add={','.join(ROOT_CAPABILITY_NAMES)}"
        yield from ("--network=host", "--dns=none") if container.network else ("--network=none",)
        yield from (f"--name={container.name}", f"--hostname={container.hostname}")
        yield f"--cidfile={self._file(container, _ID)}"
        yield f"--env-file={self._file(container, _VARIABLES)}"
        yield f"--security-opt=seccomp={self._file(container, _PROFILE)}"
        if not os.geteuid():  # podman hides less of /sys
            hidden = [os.fsdecode(path) for path in hidden_paths(as_root=True)]
            yield f"--security-opt=mask={':'.join(path for path in hidden if ':' not in path)}"
            for bus in (path for path in hidden if ":" in path):
                yield from ("--mount", f"type=tmpfs,dst={bus},ro,notmpcopyup")
        for path in container.scratch:
            yield f"--tmpfs={os.fsdecode(path)}:mode=1777,exec,nosuid,nodev"
        for mount in container.mounts:
            yield from ("--mount", _mount(mount))
        yield f"--workdir={os.fsdecode(container.cwd)}"
        yield from ("--rootfs", os.fsdecode(container.root))

    def _refuse_inner_mounts(self, container: Container) -> None:
        """Refuse a read-only bind with mounts in it: podman makes the outermost one read-only alone."""
        inner = [
            f"{os.fsdecode(mount.source)} read-only (there are mounts below it)"
            for mount in container.mounts
            if not mount.writable and mounts_below(mount.source)
        ]
        if inner:
            raise RefusedError(self.name, inner)

    @staticmethod
    def _file(container: Container, name: str) -> str:
        return os.path.join(container.work, name)


def _mount(mount: Mount) -> str:
    options = "" if mount.writable else ",ro"
    return f"type=bind,src={os.fsdecode(mount.source)},dst={os.fsdecode(mount.path)}{options}"
