"""One target in libFuzzer, by atheris: `python -m tests.fuzz.worker TARGET [OPTION|FILE|CORPUS]...`.

Its arguments behind TARGET are libFuzzer's. A FILE is read once: so a finding is seen again.
"""

from __future__ import annotations

import importlib
import pkgutil
import resource
import sys
import warnings

import atheris  # pyright: ignore[reportMissingImports]

from tests.fuzz.mutating import mutate

# More than libFuzzer allows (it looks at the peak once a second), and less than the machine has.
_MEMORY = 4 << 30
_OURS = 4  # one change of so many is of `mutating`


def _changed(data: bytes, most: int, seed: int) -> bytes:
    if seed % _OURS:
        return bytes(atheris.Mutate(data, most))
    return mutate(data, most, seed)


def main() -> None:
    """Run the target until the number of inputs, the time, or the first finding."""
    target = sys.argv.pop(1)
    with atheris.instrument_imports(include=["pkgjail"]):  # pyright: ignore[reportAttributeAccessIssue]
        import pkgjail

        # What is imported within functions counts too.
        for module in pkgutil.walk_packages(pkgjail.__path__, "pkgjail."):
            if ".extension" not in module.name and not module.name.endswith("__main__"):
                importlib.import_module(module.name)
        from tests.fuzz.targets import TARGETS
    warnings.simplefilter("error")  # whatever Python warns of would be printed beside our own words
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    read = TARGETS[target]

    def one_input(data: bytes) -> None:
        """Read it; what is said of it does not matter here."""
        read(data)

    atheris.Setup(sys.argv, one_input, custom_mutator=_changed)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
