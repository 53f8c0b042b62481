"""The editor that a Spack command would start, if the jail does not show it."""

from __future__ import annotations

import os
import shlex
import shutil
from typing import TYPE_CHECKING

from pkgjail.core.jail_names import SEARCH_PATH
from pkgjail.environments.directory import read_header
from pkgjail.environments.enter import read_built_manifest
from pkgjail.integrations.spack.instance.model import Tool, instance_binds
from pkgjail.integrations.spack.instance.uncovered import find_uncovered

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pkgjail.integrations.spack.instance.model import Instance
    from pkgjail.integrations.spack.instance.uncovered import UncoveredTool

# In the order in which Spack tries them.
_VARIABLES = ("SPACK_EDITOR", "VISUAL", "EDITOR")


def uncovered_editor(
    variables: Mapping[str, str], environment: bytes, instance: Instance
) -> UncoveredTool | None:
    """Return the editor that the caller's variables name, if the jail does not show it.

    Args:
        variables: the caller's.
        environment: the directory of the environment.
        instance: the Spack.

    """
    variable = next((name for name in _VARIABLES if variables.get(name)), None)
    try:
        words = shlex.split(variables[variable]) if variable else []
    except ValueError:  # quotes that do not match
        return None
    if not words:
        return None
    if os.path.dirname(words[0]):
        paths = [words[0]]
    else:
        outside = shutil.which(words[0], path=variables.get("PATH"))
        inside = [os.path.join(directory, words[0]) for directory in SEARCH_PATH.split(":")]
        paths = [outside or os.path.join("/usr/bin", words[0]), *inside]
    tool = Tool(f"the editor {words[0]}", tuple(paths))
    binds = (*read_header(environment).binds, *instance_binds(instance))
    found = find_uncovered([tool], read_built_manifest(environment), binds)
    return found[0]._replace(variable=variable or "") if found else None
