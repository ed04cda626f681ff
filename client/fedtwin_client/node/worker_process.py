"""A training worker as the agent sees it: a child process that is asked and answers."""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from fedtwin_client.training.pseudonym_list import Members, pack
from fedtwin_client.training.worker_wire import PREFIX, Frame, sizes
from fedtwin_protocol import errors
from fedtwin_protocol.errors import FedtwinError

log = logging.getLogger("fedtwin.worker")
ATTEMPTS: Final = 2
# A large model is one block of memory several times over; by small pages, to get it from the
# system takes five times as long as to fill it (glibc 2.35 and later; others pass it by).
HUGE_PAGES: Final = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
STOP_PATIENCE_S: Final = 2.0
PIPE_LIMIT: Final = 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What a worker's processes are told, asked for anew each time.

    Attributes:
        keys: the node's keys, for the pipe of a process that starts; nothing where its files are
            not encrypted.
        members: the patients that the ledger has for the study, before the first order of a
            process; none: not yet, or all of the hospital.
        standing: what every order says besides.
    """

    keys: Callable[[], bytes] = bytes
    members: Callable[[], Members | None] = lambda: None
    standing: Callable[[], Mapping[str, Any]] = dict


class WorkerProcess:
    """One study's training worker; started at the first order, restarted if it died.

    An order whose asker gives up is still carried to its end and its reply thrown away, so that no
    reply is ever taken for another order's. An order under which the worker dies is given once
    more: of the first nothing was kept or sent.

    Args:
        plan_file: the plan in canonical bytes.
        store: folder of the timelines.
        blobs: folder of contents.
        app_path: an installed ClientApp, or empty.
        now: the time its cohort is built at.
        told: what its processes are told besides orders.
    """

    def __init__(
        self,
        plan_file: Path,
        store: Path,
        blobs: Path,
        app_path: str,
        now: datetime,
        *,
        told: Told | None = None,
    ) -> None:
        self._told = told or Told()
        self._arguments = [str(plan_file), str(store), str(blobs), app_path, now.isoformat()]
        self._process: asyncio.subprocess.Process | None = None
        self._turn = asyncio.Lock()
        self._under_way: set[asyncio.Task[Frame]] = set()

    async def ask(self, head: dict[str, Any], body: bytes = b"") -> Frame:
        """Give an order and wait for the reply.

        An order that was given is carried out even if its caller is cancelled, as when the link is
        lost; otherwise its reply would be taken for the next order's.

        Raises:
            FedtwinError: what the worker says went wrong, as the same kind of error; or what every
                order must be told is not to be had.
        """
        order = Frame(head={**self._told.standing(), **head}, body=body)
        work = asyncio.get_running_loop().create_task(self._in_turn(order))
        self._under_way.add(work)
        work.add_done_callback(self._ended)
        reply = await asyncio.shield(work)
        if not reply.head["ok"]:
            kind = getattr(errors, reply.head["error"], FedtwinError)
            raise kind(reply.head["text"])
        return reply

    async def stop(self) -> None:
        """End the process, and what it has under way."""
        under_way = tuple(self._under_way)
        for work in under_way:
            work.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(STOP_PATIENCE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    async def _in_turn(self, order: Frame) -> Frame:
        async with self._turn:
            return await self._exchange(order)

    def _ended(self, work: asyncio.Task[Frame]) -> None:
        self._under_way.discard(work)
        if not work.cancelled():
            work.exception()  # whoever asked may be gone

    async def _exchange(self, order: Frame) -> Frame:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                process = await self._running()
                return await _once(process, order)
            except (ConnectionError, asyncio.IncompleteReadError) as error:
                code = await process.wait()
                text = f"the training worker ended with status {code} while at work (memory?)"
                if attempt == ATTEMPTS:
                    raise FedtwinError(f"{text}, {ATTEMPTS} times; see the log") from error
                log.warning("%s; it is started again", text)
        raise AssertionError("the loop returns or raises")

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is None or self._process.returncode is not None:
            keys = Frame(head={"op": "keys"}, body=self._told.keys())
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fedtwin_client.training.worker",
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=PIPE_LIMIT,
                env={**os.environ, **HUGE_PAGES},
            )
            assert self._process.stdin is not None
            self._process.stdin.write(keys.to_bytes())
            members = self._told.members()
            if members is not None:
                await _once(self._process, Frame(head={"op": "members"}, body=pack(members)))
        return self._process


async def _once(process: asyncio.subprocess.Process, order: Frame) -> Frame:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(order.to_bytes())
    await process.stdin.drain()
    head_size, body_size = sizes(await process.stdout.readexactly(PREFIX.size))
    head = json.loads(await process.stdout.readexactly(head_size))
    return Frame(head=head, body=await process.stdout.readexactly(body_size))
