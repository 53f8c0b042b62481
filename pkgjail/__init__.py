"""pkgjail: jails that show exactly the files of whitelisted packages, for honest builds.

The public functions are listed in `__all__`, one a stage; `pkgjail.model` has the types that flow
between them and `pkgjail.errors` what they raise. They are imported when first used, so that
entering a jail does not pay for what resolving one needs.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers understand it, without importing typing
if TYPE_CHECKING:
    from typing import Any

    from pkgjail.api import (
        available,
        build_manifest,
        closure_graph,
        collect_files,
        dump_manifest,
        load_policy,
        open_database,
        plan_packages,
        record_baseline,
        resolve,
        resolve_closure,
        write_manifest,
    )
    from pkgjail.baseline import publisher_of
    from pkgjail.checking import check_manifest
    from pkgjail.environments.build import build_environment
    from pkgjail.environments.enter import enter_environment
    from pkgjail.environments.isolation import (
        build_chroot_environment,
        isolate_environment,
        remove_chroot_environment,
    )
    from pkgjail.environments.remove import remove_environment
    from pkgjail.errors import PkgjailError
    from pkgjail.export import export_manifest
    from pkgjail.hashing import hash_files
    from pkgjail.jail import default_environment, prepare_jail, run_in_jail
    from pkgjail.manifest import parse_manifest, read_manifest
    from pkgjail.mounts import plan_jail
    from pkgjail.questions.diff import diff_manifests
    from pkgjail.questions.shape import shape_of
    from pkgjail.questions.why import why
    from pkgjail.report import report_page
    from pkgjail.verifying import verify_manifest

__version__ = "0.1.0"

__all__ = [
    "PkgjailError",
    "available",
    "build_chroot_environment",
    "build_environment",
    "build_manifest",
    "check_manifest",
    "closure_graph",
    "collect_files",
    "default_environment",
    "diff_manifests",
    "dump_manifest",
    "enter_environment",
    "export_manifest",
    "hash_files",
    "isolate_environment",
    "load_policy",
    "open_database",
    "parse_manifest",
    "plan_jail",
    "plan_packages",
    "prepare_jail",
    "publisher_of",
    "read_manifest",
    "record_baseline",
    "remove_chroot_environment",
    "remove_environment",
    "report_page",
    "resolve",
    "resolve_closure",
    "run_in_jail",
    "shape_of",
    "verify_manifest",
    "why",
    "write_manifest",
]

_HOMES = {
    "PkgjailError": "errors",
    "build_chroot_environment": "environments.isolation",
    "build_environment": "environments.build",
    "check_manifest": "checking",
    "default_environment": "jail",
    "diff_manifests": "questions.diff",
    "enter_environment": "environments.enter",
    "export_manifest": "export",
    "hash_files": "hashing",
    "isolate_environment": "environments.isolation",
    "parse_manifest": "manifest",
    "plan_jail": "mounts",
    "prepare_jail": "jail",
    "publisher_of": "baseline",
    "read_manifest": "manifest",
    "remove_chroot_environment": "environments.isolation",
    "remove_environment": "environments.remove",
    "report_page": "report",
    "run_in_jail": "jail",
    "shape_of": "questions.shape",
    "why": "questions.why",
    "verify_manifest": "verifying",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pkgjail.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
