"""The page for administrators says what is true: numbers, keys, units."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pkgjail.helper.__main__ import unit
from pkgjail.helper.policy import EXAMPLE, read_policy
from tests.code_lines import code_lines
from tests.test_helper_attacks import ATTACKS
from tests.test_helper_kills import VICTIMS

_TOP = Path(__file__).resolve().parent.parent
_PAGE = (_TOP / "docs" / "pkgjaild.md").read_text(encoding="utf-8")
_WORKER = {"worker.py", "wishes.py"}
_CLIENT = {"client.py"}


def test_the_lines_of_code_are_counted() -> None:
    """Whoever reads what runs as root knows how much it is."""
    helper = {path.name: code_lines(path) for path in (_TOP / "pkgjail" / "helper").glob("*.py")}
    sandbox = sum(map(code_lines, (_TOP / "pkgjail" / "sandbox").glob("*.py")))
    worker = sum(helper[name] for name in _WORKER)
    root = sum(helper[name] for name in helper.keys() - _WORKER - _CLIENT)
    said = [int(number.replace(",", "")) for number in re.findall(r"\| ([0-9,]+) \|$", _PAGE, re.MULTILINE)]
    assert said == [root, worker, sandbox]


def test_the_numbers_of_tests() -> None:
    assert f"{len(ATTACKS)} attacks" in _PAGE
    assert len(VICTIMS) == 6


def test_the_example_of_a_policy_is_one(tmp_path: Path) -> None:
    """What `--print-policy` prints can be used once a group exists; each of its keys is known."""
    example = EXAMPLE.replace('groups = ["pkgjail"]', 'groups = ["root"]')
    path = tmp_path / "policy.toml"
    path.write_text(example)
    assert read_policy(str(path)).any_manifest
    commented = re.sub(r"^# (?=[a-z_]+ = )", "", example, flags=re.MULTILINE)
    commented = commented.replace("any = true                # every manifest that a user may read\n", "")
    commented = commented.replace('"sha256:…"', f'"sha256:{"0" * 64}"').replace(
        "/etc/pkgjaild.signers", str(path)
    )
    path.write_text(commented)
    policy = read_policy(str(path))
    assert (policy.limits["per_user"], policy.signers) == (32, str(path))


@pytest.mark.parametrize("kind", ["socket", "service"])
def test_systemd_accepts_the_units(kind: str, tmp_path: Path) -> None:
    """Names of directives and their values are those of systemd."""
    for each in ("socket", "service"):
        (tmp_path / f"pkgjaild.{each}").write_text(unit(each))
    words = ["systemd-analyze", "verify", "--man=no", f"{tmp_path}/pkgjaild.{kind}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "pkgjaild" not in done.stderr, done.stderr
    assert f"ExecStart={sys.executable} -m pkgjail.helper" in unit("service")


def test_no_directive_changes_what_jails_see() -> None:
    """Jails inherit what the unit does to its processes."""
    directives = {line.partition("=")[0] for line in unit("service").splitlines() if "=" in line}
    assert not [
        each for each in directives if each.startswith(("Private", "Protect", "Restrict", "ReadOnly"))
    ]
