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
    from pkgjail.audit.advice import advise
    from pkgjail.audit.compare import compare_audits
    from pkgjail.audit.influence import find_influence
    from pkgjail.audit.learn import whitelist_text
    from pkgjail.audit.learn_build import learn_build
    from pkgjail.audit.minimise import minimise
    from pkgjail.audit.record import dump_audit, parse_audit, read_audit, write_audit
    from pkgjail.audit.run import audit_in, run_audited
    from pkgjail.audit.spack_names import load_spack_names
    from pkgjail.audit.wanted import used, wanted
    from pkgjail.core.errors import (
        ArgumentError,
        CommandError,
        DriftError,
        InputError,
        JailError,
        PkgjailError,
        UsageError,
    )
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions, Limits, UserBind
    from pkgjail.core.process_errors import CommandStatusError, CommandTimeoutError
    from pkgjail.core.reporter import Reporter
    from pkgjail.doctor.examine import examine_host
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
    from pkgjail.jails.asynchronous import run_in_jail_async
    from pkgjail.jails.open import jail
    from pkgjail.jails.plan import plan_jail
    from pkgjail.jails.run import Jail, default_environment, prepare_jail, run_in_jail
    from pkgjail.machine.libvirt import export_domain
    from pkgjail.machine.model import MachineOptions
    from pkgjail.machine.run import run_in_machine
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
    "ArgumentError",
    "CommandError",
    "CommandStatusError",
    "CommandTimeoutError",
    "DriftError",
    "InputError",
    "Jail",
    "JailError",
    "JailOptions",
    "Limits",
    "MachineOptions",
    "Manifest",
    "PkgjailError",
    "Reporter",
    "UsageError",
    "UserBind",
    "advise",
    "archive_image",
    "audit_in",
    "available",
    "build_chroot_environment",
    "build_environment",
    "build_manifest",
    "check_manifest",
    "closure_graph",
    "collect_files",
    "compare_audits",
    "create_image",
    "default_environment",
    "diff_manifests",
    "dump_audit",
    "dump_manifest",
    "enter_environment",
    "examine_host",
    "export_domain",
    "export_image",
    "export_manifest",
    "export_stored_image",
    "find_image",
    "find_influence",
    "find_source",
    "graph_view",
    "hash_files",
    "import_image",
    "isolate_environment",
    "jail",
    "learn_build",
    "list_images",
    "load_policy",
    "load_spack_names",
    "minimise",
    "open_database",
    "parse_audit",
    "parse_manifest",
    "plan_jail",
    "plan_packages",
    "prepare_jail",
    "prune_images",
    "publisher_of",
    "read_audit",
    "read_manifest",
    "record_baseline",
    "remove_chroot_environment",
    "remove_environment",
    "remove_image",
    "report_page",
    "resolve",
    "resolve_closure",
    "run_audited",
    "run_in_jail",
    "run_in_jail_async",
    "run_in_machine",
    "run_in_stage",
    "used",
    "used_image",
    "verify_image",
    "verify_manifest",
    "wanted",
    "whitelist_text",
    "whole_image",
    "why",
    "write_audit",
    "write_manifest",
]

_HOMES = {
    "ArgumentError": "core.errors",
    "CommandError": "core.errors",
    "CommandStatusError": "core.process_errors",
    "CommandTimeoutError": "core.process_errors",
    "DriftError": "core.errors",
    "InputError": "core.errors",
    "Jail": "jails.run",
    "JailError": "core.errors",
    "JailOptions": "core.options",
    "Limits": "core.options",
    "MachineOptions": "machine.model",
    "Manifest": "core.model",
    "PkgjailError": "core.errors",
    "Reporter": "core.reporter",
    "UsageError": "core.errors",
    "UserBind": "core.options",
    "advise": "audit.advice",
    "archive_image": "export.image.stored",
    "audit_in": "audit.run",
    "build_chroot_environment": "environments.isolate",
    "build_environment": "environments.build",
    "check_manifest": "review.check",
    "compare_audits": "audit.compare",
    "default_environment": "jails.run",
    "diff_manifests": "review.diff",
    "dump_audit": "audit.record",
    "enter_environment": "environments.enter",
    "examine_host": "doctor.examine",
    "export_domain": "machine.libvirt",
    "export_image": "export.image",
    "export_manifest": "export",
    "export_stored_image": "export.image.stored",
    "find_image": "images.store",
    "find_influence": "audit.influence",
    "find_source": "images.store",
    "graph_view": "review.graph",
    "hash_files": "storage.hashing",
    "import_image": "images.importing",
    "isolate_environment": "environments.isolate",
    "jail": "jails.open",
    "learn_build": "audit.learn_build",
    "list_images": "images.store",
    "load_spack_names": "audit.spack_names",
    "minimise": "audit.minimise",
    "parse_audit": "audit.record",
    "parse_manifest": "manifest",
    "plan_jail": "jails.plan",
    "prepare_jail": "jails.run",
    "prune_images": "images.store",
    "publisher_of": "storage.baseline",
    "read_audit": "audit.record",
    "read_manifest": "manifest",
    "remove_chroot_environment": "environments.isolate",
    "remove_environment": "environments.remove",
    "remove_image": "images.store",
    "report_page": "review.report",
    "run_audited": "audit.run",
    "run_in_jail": "jails.run",
    "run_in_jail_async": "jails.asynchronous",
    "run_in_machine": "machine.run",
    "run_in_stage": "stages",
    "used": "audit.wanted",
    "used_image": "images.store",
    "verify_image": "images.store",
    "verify_manifest": "review.verify",
    "wanted": "audit.wanted",
    "whitelist_text": "audit.learn",
    "why": "review.why",
    "write_audit": "audit.record",
}


if not TYPE_CHECKING:  # otherwise type checkers take any name for a public one

    def __getattr__(name: str) -> Any:  # PEP 562
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        return getattr(import_module(f"pkgjail.{_HOMES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
