"""The lists that come with pkgjail, and the documentation of their format."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pkgjail.core.errors import PolicyError
from pkgjail.policy import load_policy, shipped_blacklists, shipped_whitelists
from pkgjail.policy.patterns import check_pattern
from tests.memory import MemoryDatabase
from tests.policy_cases import BASES, database, write


def test_shipped_names() -> None:
    """The lists that the documentation names are shipped."""
    assert shipped_whitelists() == ("base", "build", "fabric", "gpu-amd", "gpu-intel", "gpu-nvidia", "spack")
    assert shipped_blacklists() == ("docs", "locales", "python-bytecode", "static-libs")


@pytest.mark.parametrize("family", ["debian", "rhel", "suse", "arch"])
def test_shipped_lists_load(family: str) -> None:
    """Shipped lists are sound for each family: only packages that are not installed can be missing."""
    with pytest.raises(PolicyError) as caught:
        load_policy(
            shipped_whitelists(), shipped_blacklists(), database=MemoryDatabase.from_text("", family=family)
        )
    pattern = re.compile(r"cannot satisfy '([^']+)': ")
    found = [pattern.match(problem.message) for problem in caught.value.problems]
    wanted = [match[1] for match in found if match]
    assert len(wanted) == len(found)
    names = " ".join(requirement.split(" ")[0] for requirement in wanted)
    policy = load_policy(shipped_whitelists(), shipped_blacklists(), database=database(names, family=family))
    assert [requirement.text for requirement in policy.packages] == list(dict.fromkeys(wanted))
    assert policy.whitelists == shipped_whitelists()
    assert [check_pattern(rule.pattern) for rule in policy.drops] == [""] * len(policy.drops)


def test_spack_asks_for_what_its_documentation_does() -> None:
    """The list has every documented prerequisite of Spack."""
    documented = (
        "bzip2 ca-certificates file g++ gcc gfortran git gzip lsb-release patch python3 tar unzip"
        " xz-utils zstd gnupg make curl perl"
    )
    known = database(f"{documented} {BASES} libc6-dev")
    patterns = {requirement.text for requirement in load_policy(["spack"], database=known).packages}
    assert set(documented.split()) - patterns == set()


def test_documentation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples of docs/policy.md work, and the messages there are real."""
    page = (Path(__file__).parent.parent / "docs/policy.md").read_text(encoding="utf-8")
    good, rules, faulty, said = re.findall(r"^```\w+\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    write(
        tmp_path,
        f"-- here/my.toml\n{good}-- here/site.ignore\n{rules}-- site/mpi.toml\npackages.debian = []\n",
    )
    monkeypatch.chdir(tmp_path)
    policy = load_policy(["here/my.toml"], database=database(f"{BASES} libc6-dev zlib1g-dev"))
    assert policy.whitelists == ("base", "mpi.toml", "my.toml")
    assert policy.blacklists == ("docs", "site.ignore")
    assert [requirement.text for requirement in policy.packages][-3:] == [
        "gcc (>= 4:10)",
        "libc6-dev",
        "zlib1g-dev | libz-dev",
    ]

    (tmp_path / "my.toml").write_text(faulty, encoding="utf-8")
    with pytest.raises(PolicyError) as caught:
        load_policy(["my.toml"], database=database())
    pattern = "".join(".*" if part == "…" else re.escape(part) for part in re.split("(…)", said.strip()))
    assert re.fullmatch(pattern, str(caught.value))
