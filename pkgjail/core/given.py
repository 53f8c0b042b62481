"""Arguments as callers write them: paths of any type, and sequences that must not be one text.

Inside, paths of the host are bytes. Public functions take them as `open` does, and convert them here.
"""

from __future__ import annotations

import os

from pkgjail.core.errors import ArgumentError

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any, TypeVar, Union

    from typing_extensions import TypeAlias

    AnyPath: TypeAlias = Union[str, bytes, os.PathLike[str], os.PathLike[bytes]]
    """A path as `open` takes it."""

    T = TypeVar("T")

_MOST_SHOWN = 60  # characters of a wrong argument


def path_bytes(path: AnyPath, name: str = "a path") -> bytes:
    """Return a path as bytes, whatever type it has.

    Raises:
        ArgumentError: it is no path; `name` says which argument it is.

    """
    if type(path) is bytes:
        return path
    try:
        return os.fsencode(path)
    except TypeError:
        raise ArgumentError(
            f"{name} must be a path, a str, bytes or os.PathLike, not {_shown(path)}"
        ) from None


def path_text(path: AnyPath, name: str = "a path") -> str:
    """Return a path as text, whatever type it has; bytes that are no text as `os.fsdecode` has them.

    Raises:
        ArgumentError: it is no path.

    """
    return os.fsdecode(path_bytes(path, name))


def path_sequence(paths: Iterable[AnyPath], name: str) -> tuple[bytes, ...]:
    """Return several paths as bytes.

    Raises:
        ArgumentError: it is one path in the place of several, or one of them is no path.

    """
    _refuse_single(paths, name)
    return tuple(path_bytes(path, f"{name}[{number}]") for number, path in enumerate(paths))


def words(values: Iterable[AnyPath], name: str) -> tuple[str, ...]:
    """Return the words of a command, or names: texts, among which may be paths.

    Raises:
        ArgumentError: it is one text in the place of several, or one of them is neither text nor path.

    """
    _refuse_single(values, name)
    return tuple(path_text(value, f"{name}[{number}]") for number, value in enumerate(values))


def list_names(values: Iterable[AnyPath], name: str) -> tuple[str, ...]:
    """Return the names of lists. A path object is a file, so it gets a `./` if it looks like a shipped name.

    Raises:
        ArgumentError: as `words`.

    """
    _refuse_single(values, name)
    return tuple(_list_name(value, f"{name}[{number}]") for number, value in enumerate(values))


def sequence(values: Iterable[T], name: str) -> tuple[T, ...]:
    """Return any values as a tuple.

    Raises:
        ArgumentError: it is no sequence, or a text.

    """
    _refuse_single(values, name)
    return tuple(values)


def instance_of(value: object, kind: type[T], name: str, advice: str = "") -> T:
    """Return a value that must be of a type.

    Raises:
        ArgumentError: it is of another one; `advice` says what to do.

    """
    if not isinstance(value, kind):
        hint = advice and f"; {advice}"
        raise ArgumentError(f"{name} must be a {kind.__name__}, not {_shown(value)}{hint}")
    return value


def number_or_none(value: float | None, name: str) -> float | None:
    """Return a number, or None.

    Raises:
        ArgumentError: it is something else.

    """
    if value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        return value
    raise ArgumentError(f"{name} must be a number or None, not {_shown(value)}")


def variables(values: Mapping[str, str], name: str) -> Mapping[str, str]:
    """Return the variables of an environment.

    Raises:
        ArgumentError: it is no mapping of texts.

    """
    if not hasattr(values, "items"):
        raise ArgumentError(f"{name} must be a mapping of names to values, not {_shown(values)}")
    for key, value in values.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ArgumentError(f"{name} must have texts alone: {_shown(key)} has {_shown(value)}")
    return values


def convert(instance: object, given: Callable[[Any, str], object], *fields: str) -> None:
    """Convert fields of a frozen record that was just made, each by `given(value, name)`."""
    for each in fields:
        value = getattr(instance, each)
        converted = given(value, each)
        if converted is not value:
            object.__setattr__(instance, each, converted)


def names_list(name: str) -> bool:
    """Return whether a name that may be that of a whitelist or of a manifest is a whitelist's.

    A directory is neither, and is often called as a shipped list, such as "build".
    """
    is_file = "/" in name or (os.path.exists(name) and not os.path.isdir(name))
    return name.endswith(".toml") or not (is_file or name.endswith(".jsonl"))


def _list_name(value: AnyPath, name: str) -> str:
    text = path_text(value, name)
    return f"./{text}" if isinstance(value, os.PathLike) and "/" not in text else text


def _refuse_single(values: object, name: str) -> None:
    """Refuse a text, which is a sequence of letters, where a sequence of texts is wanted."""
    if isinstance(values, (str, bytes, os.PathLike)):
        raise ArgumentError(
            f"{name} must be a sequence, not {_shown(values)}: write [{_shown(values, with_type=False)}]"
        )
    if not hasattr(values, "__iter__"):
        raise ArgumentError(f"{name} must be a sequence, not {_shown(values)}")


def _shown(value: object, *, with_type: bool = True) -> str:
    text = repr(value)
    text = text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."
    return f"the {type(value).__name__} {text}" if with_type else text
