"""Parse rpm's requirements: `name`, `name >= 1:2-3`, and rich ones such as `(a if (b or c))`.

Grammar and meaning are those of rpm's manual, "Boolean Dependencies". A rich requirement becomes clauses
(the conjunctive normal form), each of which must be satisfied: one of some capabilities is installed, or
one of some conditions is not met. `with` and `without` are about one package, so they are not split.
`unless`, which rpm accepts only in conflicts, is the counterpart of `if`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple, Union

from pkgjail.core.model import DependencyGroup, Relation
from pkgjail.core.text import split_alternatives

_COMPARISONS = {
    "<": "<<", "<=": "<=", "=<": "<=", "=": "=", "==": "=", ">=": ">=", "=>": ">=", ">": ">>",
}  # fmt: skip
SIGNS = {"<<": "<", ">>": ">"}
"""rpm's signs for operators of `Relation` that it writes differently."""

_CHAINED = ("and", "or", "with", "without")
_CONDITIONAL = ("if", "unless")
_MAX_CLAUSES = 256
_MAX_DEPTH = 50
_MAX_CHARACTERS = 16384
_WITH_ELSE = 3  # operands
_WORD = re.compile(r"[^\s,()]+")
_SIGN = re.compile(r"[<=>]*")


class Operation(NamedTuple):
    """A rich requirement: an operator and its operands; a third one is that of `else`."""

    operator: str
    operands: tuple[Node, ...]


Node = Union[Relation, Operation]


class _Clause(NamedTuple):
    """One of `alternatives` is required if all of `conditions` are installed."""

    alternatives: tuple[Relation, ...]
    conditions: tuple[Relation, ...]


def is_rich(text: str) -> bool:
    """Return whether `text` is a rich requirement."""
    return text.startswith("(")


def show(node: Node) -> str:
    """Return a requirement in rpm's syntax."""
    if isinstance(node, Relation):
        sign = SIGNS.get(node.operator, node.operator)
        return f"{node.name} {sign} {node.version}" if sign else node.name
    if len(node.operands) == _WITH_ELSE and node.operator in _CONDITIONAL:
        then, condition, otherwise = map(show, node.operands)
        return f"({then} {node.operator} {condition} else {otherwise})"
    return f"({f' {node.operator} '.join(map(show, node.operands))})"


@lru_cache(maxsize=4096)
def parse(text: str) -> Node:
    """Parse one requirement. Raises `ValueError` with what is wrong with it."""
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"{text[:80]!r}… has more than {_MAX_CHARACTERS} characters")
    reader = _Reader(text)
    node = reader.node(0)
    reader.end()
    return node


def plain_group(relation: Relation, kind: str) -> DependencyGroup:
    """Return the requirement of one capability."""
    return DependencyGroup(kind=kind, alternatives=(relation,), text=show(relation))


def groups(text: str, kind: str) -> tuple[DependencyGroup, ...]:
    """Return the requirement `text` as groups of the field `kind`, all required. Raises `ValueError`."""
    node = parse(text)
    if isinstance(node, Relation):
        return (plain_group(node, kind),)
    shown = show(node)
    return tuple(
        DependencyGroup(
            kind=kind,
            alternatives=(_any_of(clause.alternatives),),
            text=shown,
            conditions=clause.conditions,
        )
        for clause in _clauses(node, negated=False)
    )


def entry_groups(text: str) -> tuple[DependencyGroup, ...]:
    """Parse an entry of a whitelist: a requirement, or several plain ones between `|`, the preferred first.

    Raises `ValueError`.
    """
    parts = split_alternatives(text)
    if len(parts) == 1:
        return groups(text, "whitelist")
    rich = next(filter(is_rich, parts), "")
    if rich:
        raise ValueError(f"{rich!r} is a rich requirement, which cannot stand beside '|'; write (a or b)")
    found = tuple(one for one in map(parse, parts) if isinstance(one, Relation))  # all
    shown = " | ".join(map(show, found))
    return (DependencyGroup(kind="whitelist", alternatives=found, text=shown),)


def _any_of(relations: tuple[Relation, ...]) -> Relation:
    """Return one relation that any of `relations` satisfies: rpm prefers none of them to another."""
    if len(relations) == 1:
        return relations[0]
    return Relation(name=show(Operation("or", relations)))


@lru_cache(maxsize=4096)  # nested conditions are needed twice at each level
def _clauses(node: Node, *, negated: bool) -> tuple[_Clause, ...]:
    """Return the clauses of `node`, or of its negation."""
    if isinstance(node, Relation):
        return (_Clause((), (node,)) if negated else _Clause((node,), ()),)
    if node.operator in {"with", "without"}:
        unsplit = Relation(name=show(node))
        return (_Clause((), (unsplit,)) if negated else _Clause((unsplit,), ()),)
    if node.operator in _CONDITIONAL:
        return _clauses_of_conditional(node, negated=negated)
    parts = [_clauses(operand, negated=negated) for operand in node.operands]
    if (node.operator == "and") != negated:
        return tuple(dict.fromkeys(clause for part in parts for clause in part))
    return _either(*parts)


def _clauses_of_conditional(node: Operation, *, negated: bool) -> tuple[_Clause, ...]:
    """`a if b else c` is (a or not b) and (c or b); `unless` has b and not b exchanged."""
    then, condition, *rest = node.operands
    is_if = node.operator == "if"
    first = (then, is_if)
    second = (rest[0] if rest else None, not is_if)
    implications = [
        _either(_clauses(one, negated=False), _clauses(condition, negated=inverse))
        for one, inverse in (first, second)
        if one is not None
    ]
    if not negated:
        return tuple(clause for part in implications for clause in part)
    # not (a if b else c) is (not a and b) or (not c and not b); without c, the first part.
    cases = [
        (*_clauses(one, negated=True), *_clauses(condition, negated=not inverse))
        for one, inverse in (first, second)
        if one is not None
    ]
    return _either(*cases)


def _either(*parts: tuple[_Clause, ...]) -> tuple[_Clause, ...]:
    """Return the clauses of "one of `parts`": all combinations, without those that are always satisfied."""
    found: tuple[_Clause, ...] = (_Clause((), ()),)
    for part in parts:
        if len(found) * len(part) > _MAX_CLAUSES:
            raise ValueError("it is too large a boolean dependency")
        found = tuple(
            _Clause(
                tuple(dict.fromkeys((*one.alternatives, *other.alternatives))),
                tuple(dict.fromkeys((*one.conditions, *other.conditions))),
            )
            for one in found
            for other in part
        )
    return tuple(dict.fromkeys(one for one in found if set(one.alternatives).isdisjoint(one.conditions)))


class _Reader:
    """Parses a requirement from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def node(self, depth: int) -> Node:
        """Parse the requirement at this position. Raises `ValueError`."""
        self._skip()
        if self._text.startswith("(", self._at):
            return self._rich(depth)
        return self._simple()

    def end(self) -> None:
        """Refuse any text that follows."""
        self._skip()
        if self._at < len(self._text):
            raise ValueError(f"{self._text[self._at :]!r} stands after a requirement in {self._text!r}")

    def _rich(self, depth: int) -> Operation:
        if depth == _MAX_DEPTH:
            raise ValueError(f"{self._text[:80]!r}… is nested too deeply")
        self._at += 1
        operands = [self.node(depth + 1)]
        operator = self._operator()
        while True:
            operands.append(self.node(depth + 1))
            self._skip()
            if self._text.startswith(")", self._at):
                self._at += 1
                return Operation(operator, tuple(operands))
            following = self._operator()
            may_else = operator in _CONDITIONAL and len(operands) < _WITH_ELSE
            is_else = following == "else" and may_else
            if not is_else and (following != operator or operator not in _CHAINED):
                raise ValueError(
                    f"{following!r} cannot follow {operator!r} in {self._text!r}; add parentheses"
                )

    def _operator(self) -> str:
        self._skip()
        match = _WORD.match(self._text, self._at)
        word = match[0] if match else ""
        if word not in {*_CHAINED, *_CONDITIONAL, "else"}:
            raise ValueError(f"{word!r} is not one of and, or, if, else, with, without in {self._text!r}")
        self._at += len(word)
        return word

    def _simple(self) -> Relation:
        name = self._name()
        if not name:
            raise ValueError(f"a name is missing in {self._text!r}")
        before = self._at
        self._skip()
        sign = _SIGN.match(self._text, self._at)
        operator = sign[0] if sign else ""
        if not operator:
            self._at = before
            return Relation(name=name)
        if operator not in _COMPARISONS:
            raise ValueError(f"{operator!r} is not one of <, <=, =, >=, > in {self._text!r}")
        self._at += len(operator)
        self._skip()
        version = self._name()
        if not version:
            raise ValueError(f"a version is missing after {operator!r} in {self._text!r}")
        return Relation(name=name, operator=_COMPARISONS[operator], version=version)

    def _name(self) -> str:
        """Consume a name, up to white space, a comma, or a `)` that is not part of it."""
        start, opened = self._at, 0
        while self._at < len(self._text):
            character = self._text[self._at]
            opened += (character == "(") - (character == ")")
            if character.isspace() or character == "," or opened < 0:
                break
            self._at += 1
        return self._text[start : self._at]

    def _skip(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1
