"""What a container takes away from a jail in it, and the engine's options that give it back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

# Nothing is covered there: the kernel has an empty directory for this mount.
_MOUNT_POINTS_OF_PROC = frozenset({b"/proc/sys/fs/binfmt_misc"})
_MOST_NAMES = 3


class Confinement(NamedTuple):
    """How this process is confined: by a seccomp filter, by covered parts of /proc, by a security module.

    `profile` is the security module's, as /proc/self/attr/current shows it, or empty for none.
    """

    filtered: bool
    covered: tuple[str, ...]
    profile: str

    def options(self, *, filtered: bool = False) -> str:
        """Return the options with which an engine gives a container what a jail needs.

        `filtered` says that the filter forbids a call that is needed.
        """
        both = (f"{engine} run {' '.join(options)}" for engine, options in self.by_engine(filtered=filtered))
        return ", ".join(both)

    def by_engine(self, *, filtered: bool = False) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Return the same for each engine: its name, and its options."""
        docker = ["seccomp=unconfined"] if filtered else []
        podman = list(docker)
        if self.covered:
            docker.append("systempaths=unconfined")
            podman.append("unmask=ALL")
        if self.profile:
            module = "label=disable" if ":" in self.profile else "apparmor=unconfined"
            docker.append(module)
            podman.append(module)
        return tuple(
            (engine, tuple(f"--security-opt {option}" for option in options))
            for engine, options in (("podman", podman), ("docker", docker))
        )

    def covered_names(self) -> str:
        """Return some of the names in /proc that are covered."""
        more = ", …" if len(self.covered) > _MOST_NAMES else ""
        return ", ".join(self.covered[:_MOST_NAMES]) + more


def read_confinement(proc: Path) -> Confinement:
    """Read how this process is confined."""
    status = _read(proc / "self/status").splitlines()
    fields = [line.split() for line in _read(proc / "self/mountinfo").splitlines()]
    points = {line[4] for line in fields if line[4:5] and line[4].startswith(b"/proc/")}
    profile = _read(proc / "self/attr/current").strip(b"\0\n ").decode("utf-8", "backslashreplace")
    return Confinement(
        filtered=any(line.split() == [b"Seccomp:", b"2"] for line in status),
        covered=tuple(
            sorted(point.decode("utf-8", "backslashreplace") for point in points - _MOUNT_POINTS_OF_PROC)
        ),
        profile="" if profile.startswith(("unconfined", "kernel")) else profile,
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
