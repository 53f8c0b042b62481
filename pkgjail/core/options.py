"""The options of a jail, which callers make: frozen, with arguments of any type that Python users write."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING

from pkgjail.core.given import (
    convert,
    instance_of,
    number_or_none,
    path_bytes,
    path_sequence,
    sequence,
    variables,
    words,
)
from pkgjail.core.model import PlanOption, Verify, record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pkgjail.core.given import AnyPath


@record
class UserBind:
    """A directory or file of the host that the user binds into the jail.

    Raises:
        ArgumentError: a path is none (`pkgjail.core.given`).

    """

    source: bytes
    destination: bytes
    writable: bool

    if TYPE_CHECKING:

        def __init__(self, *, source: AnyPath, destination: AnyPath, writable: bool) -> None: ...

    def __post_init__(self) -> None:
        convert(self, path_bytes, "source", "destination")


@record
class Limits:
    """The most that a jail may use; None is no limit.

    `memory` is in bytes, without swap. `cpus` is in processors: 0.5 is half of the time of one. `pids` is
    the number of processes and threads at once.
    """

    memory: int | None = None
    cpus: float | None = None
    pids: int | None = None

    def __post_init__(self) -> None:
        for name in ("memory", "cpus", "pids"):
            number_or_none(getattr(self, name), name)


@record
class JailOptions:
    """The options of a jail. `cwd` is a path inside; `environment` is the whole environment of the command.

    Without PATH in it, most commands find no others: begin with `default_environment`.

    `devices` are names or patterns of devices (`pkgjail.core.devices`) that the jail shows besides those that
    the manifest allows; each must be there. `device_sets` are shipped whitelists whose devices are shown
    likewise; the manifest must have the libraries for them.

    `paths` are paths of the host, through symbolic links, by which the command may look for what `binds` show
    at the path that it has on the host. The links are made in the jail. If `cwd` is one of these paths, the
    variable PWD has it. If its links cannot be made, the command starts at the path without links.

    `plan` is the strategy for large directories. With `allow_drift`, a host that differs from the manifest is
    accepted as it is. With `strict_exit`, entries that changed while the command ran are an error.

    With `share_ipc`, the jail has the caller's IPC namespace and the host's /dev/shm: processes outside, and
    in other such jails, can share memory with the command.

    With `map_root`, the command is user 0 and group 0, and has the ids from 1 on that the caller has as
    subordinate ids (subuid(5)). It may change owners and users among these, and has no other privilege.

    Without `user_namespace`, the jail is made with the calling process's own privileges, which must be those
    of `pkgjail.sandbox.privileged`; `pkgjail.stages.root` sees to that.

    `inputs` are files and directories that later runs read again, such as the manifest. Writable binds show
    them read-only (see `pkgjail.jails.protected_paths`), with a warning unless `warn_of_inputs` is off.

    Paths may have any type that `open` takes; the fields have them as bytes.

    Raises:
        ArgumentError: a path is none, or a sequence is one text (`pkgjail.core.given`).

    """

    binds: tuple[UserBind, ...] = ()
    devices: tuple[bytes, ...] = ()
    device_sets: tuple[str, ...] = ()
    cwd: bytes = b"/"
    paths: tuple[bytes, ...] = ()
    network: bool = True
    environment: Mapping[str, str] = field(default_factory=dict)
    plan: PlanOption = "auto"
    verify: Verify = ""
    allow_drift: bool = False
    strict_exit: bool = False
    share_ipc: bool = False
    map_root: bool = False
    user_namespace: bool = True
    limits: Limits = Limits()
    inputs: tuple[bytes, ...] = ()
    warn_of_inputs: bool = True

    if TYPE_CHECKING:

        def __init__(  # noqa: PLR0913 - the fields
            self,
            *,
            binds: Iterable[UserBind] = ...,
            devices: Iterable[AnyPath] = ...,
            device_sets: Iterable[str] = ...,
            cwd: AnyPath = ...,
            paths: Iterable[AnyPath] = ...,
            network: bool = ...,
            environment: Mapping[str, str] = ...,
            plan: PlanOption = ...,
            verify: Verify = ...,
            allow_drift: bool = ...,
            strict_exit: bool = ...,
            share_ipc: bool = ...,
            map_root: bool = ...,
            user_namespace: bool = ...,
            limits: Limits = ...,
            inputs: Iterable[AnyPath] = ...,
            warn_of_inputs: bool = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        convert(self, path_bytes, "cwd")
        convert(self, path_sequence, "devices", "paths", "inputs")
        convert(self, words, "device_sets")
        convert(self, sequence, "binds")
        convert(self, variables, "environment")
        instance_of(self.limits, Limits, "limits")
        for index, bind in enumerate(self.binds):
            instance_of(bind, UserBind, f"binds[{index}]", "pkgjail.jail takes paths, too")
