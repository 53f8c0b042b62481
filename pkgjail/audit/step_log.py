"""The log of a search that builds again and again: a killed search goes on without repeating a build.

JSON Lines, keys sorted, without white space: a header that says which search it is, a line with the outputs
of the build as it is, and a line for each step. A line that a kill cut off is removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
from base64 import b64decode, b64encode
from functools import partial
from typing import TYPE_CHECKING, Any

from pkgjail.audit.differences import Difference, Noise
from pkgjail.audit.outputs import OutputFile, Outputs
from pkgjail.core.errors import InputError, Problem, UsageError
from pkgjail.core.model import record
from pkgjail.core.untrusted import MANIFEST, PARSE_INT, is_nested, parsing, read_descriptor
from pkgjail.manifest.subset import Root
from pkgjail.storage.atomic import write_all

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

SCHEMA = 1


@record
class Step:
    """One try: a build without some roots, of which `packages` is the digest of the packages that were left.

    `why` is the most telling difference of one that was not accepted.
    """

    packages: str
    without: tuple[Root, ...]
    accepted: bool
    why: Difference | None = None


@record
class Base:
    """The build as it is: what it put out, its noise, and packages of the manifest.

    `used` are those of which it asked for a file, `opened` those of which it opened or executed one.
    """

    outputs: Outputs
    noise: Noise
    used: tuple[str, ...]
    opened: tuple[str, ...]


class StepLog:
    """The log at a path, locked while it is open; without a path, nothing is kept. A context manager.

    `header` says which search it is. `base` and `steps` are what an earlier run left.

    Raises, when it is entered:
        UsageError: the log is of another search, or another process writes it.
        InputError: it is damaged.
        OSError: it cannot be read or written.

    """

    def __init__(self, path: str | None, header: dict[str, Any]) -> None:
        self.base: Base | None = None
        self.steps: list[Step] = []
        self._path = path
        self._header = {"kind": "minimise", "schema": SCHEMA, **header}
        self._file: int | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            self._file = os.open(self._path, flags, 0o666)
            try:
                self._open(self._file, self._path)
            except BaseException:
                os.close(self._file)
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)

    def add_base(self, base: Base) -> None:
        """Write the line of the build as it is."""
        self.base = base
        self._write({"kind": "base", **_plain_base(base)})

    def add_step(self, step: Step) -> None:
        """Write the line of a step."""
        self.steps.append(step)
        self._write({"kind": "step", **_plain_step(step)})

    def _open(self, file: int, path: str) -> None:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise UsageError(f"cannot keep the steps in {path}: it is no regular file; name another path")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UsageError(
                f"cannot keep the steps in {path}: another process does; wait for its end"
            ) from error
        content = read_descriptor(file, path, MANIFEST)
        whole, _, _ = content.rpartition(b"\n")
        lines = whole.split(b"\n") if whole else []
        os.ftruncate(file, len(whole) + 1 if whole else 0)
        if not lines:
            self._write(self._header)
            return
        for number, line in enumerate(lines, 1):
            with parsing(partial(_damaged, path, number)):
                self._read(line, number, path)

    def _read(self, line: bytes, number: int, path: str) -> None:
        text = line.decode()
        if is_nested(text):
            raise ValueError("it has too many lists and objects")
        found = json.loads(text, parse_int=PARSE_INT)
        if number == 1:
            if found != self._header:
                raise UsageError(
                    f"cannot go on with {path}: it is of another manifest, command, directory or start; name "
                    "another file, or remove it"
                )
        elif found["kind"] == "base":
            self.base = _base(found)
        else:
            self.steps.append(_step(found))

    def _write(self, line: dict[str, Any]) -> None:
        if self._file is not None:
            write_all(self._file, json.dumps(line, sort_keys=True, separators=(",", ":")).encode() + b"\n")
            os.fdatasync(self._file)


def _damaged(path: str, number: int, why: str) -> InputError:
    return InputError(
        [Problem(f"{path}:{number}", f"this is no line of a log of steps: {why}; remove the file")]
    )


def _raw(data: bytes) -> str:
    return b64encode(data).decode()


def _plain_step(step: Step) -> dict[str, Any]:
    why = None if step.why is None else [step.why.kind, _raw(step.why.file), *step.why[2:]]
    return {
        "packages": step.packages,
        "without": list(map(list, step.without)),
        "accepted": step.accepted,
        "why": why,
    }


def _step(found: dict[str, Any]) -> Step:
    why = found["why"]
    return Step(
        packages=str(found["packages"]),
        without=tuple(Root(str(source), str(text)) for source, text in found["without"]),
        accepted=found["accepted"] is True,
        why=None if why is None else _difference(why),
    )


def _difference(values: list[Any]) -> Difference:
    kind, file, name, old, new = values
    return Difference(kind, b64decode(file), str(name), str(old), str(new))


def _plain_base(base: Base) -> dict[str, Any]:
    files = [
        [
            _raw(path),
            each.kind,
            each.mode,
            each.size,
            each.sha256,
            _raw(each.target),
            [[*name, value] for name, value in sorted(each.facts.items())],
        ]
        for path, each in sorted(base.outputs.files.items())
    ]
    noise = [[kind, _raw(file), name] for kind, file, name in sorted(base.noise.facts)]
    return {
        "status": base.outputs.status,
        "left_out": base.outputs.left_out,
        "files": files,
        "noise": noise,
        "shapes": sorted(map(_raw, base.noise.shapes)),
        "used": list(base.used),
        "opened": list(base.opened),
    }


def _base(found: dict[str, Any]) -> Base:
    files = {}
    for path, kind, mode, size, sha256, target, facts in found["files"]:
        files[b64decode(path)] = OutputFile(
            kind=kind,
            mode=mode,
            size=size,
            sha256=sha256,
            target=b64decode(target),
            facts={(fact, name): value for fact, name, value in facts},
        )
    return Base(
        outputs=Outputs(status=found["status"], files=files, left_out=found["left_out"]),
        noise=Noise(
            facts=frozenset((kind, b64decode(file), name) for kind, file, name in found["noise"]),
            shapes=frozenset(map(b64decode, found["shapes"])),
        ),
        used=tuple(found["used"]),
        opened=tuple(found["opened"]),
    )
