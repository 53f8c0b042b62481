"""pkgjail: jails that show exactly the files of whitelisted packages, for honest builds.

`__all__` lists the public names. `pkgjail.core.model` has the types that the functions exchange, and
`pkgjail.core.errors` the errors that they raise. A name is imported when it is first used, so that entering a
jail does not import what resolving one needs.
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
        create_image,
        dump_manifest,
        load_policy,
        open_database,
        plan_packages,
        record_baseline,
        resolve,
        resolve_closure,
        whole_image,
        write_manifest,
    )
    from pkgjail.core.errors import PkgjailError
    from pkgjail.core.model import JailOptions, Limits, UserBind
    from pkgjail.environments.build import build_environment
    from pkgjail.environments.enter import enter_environment
    from pkgjail.environments.isolate import (
        build_chroot_environment,
        isolate_environment,
        remove_chroot_environment,
    )
    from pkgjail.environments.remove import remove_environment
    from pkgjail.export import export_manifest
    from pkgjail.export.image import export_image
    from pkgjail.export.image.stored import archive_image, export_stored_image
    from pkgjail.images.importing import import_image
    from pkgjail.images.store import (
        find_image,
        find_source,
        list_images,
        prune_images,
        remove_image,
        used_image,
        verify_image,
    )
    from pkgjail.jail.plan import plan_jail
    from pkgjail.jail.run import default_environment, prepare_jail, run_in_jail
    from pkgjail.manifest import parse_manifest, read_manifest
    from pkgjail.review.check import check_manifest
    from pkgjail.review.diff import diff_manifests
    from pkgjail.review.graph import graph_view
    from pkgjail.review.report import report_page
    from pkgjail.review.verify import verify_manifest
    from pkgjail.review.why import why
    from pkgjail.stages import run_in_stage
    from pkgjail.storage.baseline import publisher_of
    from pkgjail.storage.hashing import hash_files

__version__ = "0.2.0"

__all__ = [
    "JailOptions",
    "Limits",
    "PkgjailError",
    "UserBind",
    "archive_image",
    "available",
    "build_chroot_environment",
    "build_environment",
    "build_manifest",
    "check_manifest",
    "closure_graph",
    "collect_files",
    "create_image",
    "default_environment",
    "diff_manifests",
    "dump_manifest",
    "enter_environment",
    "export_image",
    "export_manifest",
    "export_stored_image",
    "find_image",
    "find_source",
    "graph_view",
    "hash_files",
    "import_image",
    "isolate_environment",
    "list_images",
    "load_policy",
    "open_database",
    "parse_manifest",
    "plan_jail",
    "plan_packages",
    "prepare_jail",
    "prune_images",
    "publisher_of",
    "read_manifest",
    "record_baseline",
    "remove_chroot_environment",
    "remove_environment",
    "remove_image",
    "report_page",
    "resolve",
    "resolve_closure",
    "run_in_jail",
    "run_in_stage",
    "used_image",
    "verify_image",
    "verify_manifest",
    "whole_image",
    "why",
    "write_manifest",
]

_HOMES = {
    "JailOptions": "core.model",
    "Limits": "core.model",
    "PkgjailError": "core.errors",
    "UserBind": "core.model",
    "archive_image": "export.image.stored",
    "build_chroot_environment": "environments.isolate",
    "build_environment": "environments.build",
    "check_manifest": "review.check",
    "default_environment": "jail.run",
    "diff_manifests": "review.diff",
    "enter_environment": "environments.enter",
    "export_image": "export.image",
    "export_manifest": "export",
    "export_stored_image": "export.image.stored",
    "find_image": "images.store",
    "find_source": "images.store",
    "hash_files": "storage.hashing",
    "import_image": "images.importing",
    "isolate_environment": "environments.isolate",
    "list_images": "images.store",
    "parse_manifest": "manifest",
    "plan_jail": "jail.plan",
    "prepare_jail": "jail.run",
    "prune_images": "images.store",
    "publisher_of": "storage.baseline",
    "read_manifest": "manifest",
    "remove_chroot_environment": "environments.isolate",
    "remove_environment": "environments.remove",
    "remove_image": "images.store",
    "report_page": "review.report",
    "run_in_jail": "jail.run",
    "run_in_stage": "stages",
    "graph_view": "review.graph",
    "used_image": "images.store",
    "verify_image": "images.store",
    "why": "review.why",
    "verify_manifest": "review.verify",
}


def __getattr__(name: str) -> Any:  # PEP 562
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"pkgjail.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
