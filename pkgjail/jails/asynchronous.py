"""Run commands in jails from asyncio."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from pkgjail.core.given import words
from pkgjail.core.reporter import SILENT
from pkgjail.jails.run import prepare_jail
from pkgjail.jails.streams import streams_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from subprocess import CompletedProcess
    from typing import Any

    from typing_extensions import Unpack

    from pkgjail.core.given import AnyPath
    from pkgjail.core.model import Manifest
    from pkgjail.core.options import JailOptions
    from pkgjail.core.reporter import Reporter
    from pkgjail.jails.streams import StreamOptions
    from pkgjail.storage.baseline import Publisher


async def run_in_jail_async(  # noqa: PLR0913 - all but two by keyword
    manifest: Manifest,
    argv: Iterable[AnyPath],
    options: JailOptions | None = None,
    *,
    root: AnyPath = b"/",
    publisher: Publisher | None = None,
    reporter: Reporter = SILENT,
    **streams: Unpack[StreamOptions],
) -> CompletedProcess[Any]:
    """Run `argv` in a jail as `run_in_jail` does, while other tasks go on.

    Arguments, result and errors are those of `run_in_jail`; there is no terminal. The work is done in a
    thread of its own, from which `reporter` is called. If the task is cancelled, the command is killed with
    all processes of its jail before this returns. Signals act on the program, and are not relayed.
    """
    command, served = words(argv, "argv"), streams_of(streams, "run_in_jail_async")

    def run() -> CompletedProcess[Any]:
        jail = prepare_jail(manifest, options, root=root, publisher=publisher, reporter=reporter)
        return jail.serve(command, served)

    # The jail ends with the thread that made it, so none of a pool that others use.
    with_thread = ThreadPoolExecutor(1, "pkgjail")
    running = asyncio.get_running_loop().run_in_executor(with_thread, run)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        served.cancel()
        await asyncio.wait([running])
        running.exception()  # so that asyncio does not report it as lost
        raise
    finally:
        with_thread.shutdown(wait=False)
