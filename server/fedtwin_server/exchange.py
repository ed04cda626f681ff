"""One exchange carried out: tasks go out, answers are admitted, kept and counted."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.channel import LEASE_S
from fedtwin_protocol.content import ref_of
from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.wire import blob_ref
from fedtwin_server import rounds
from fedtwin_server.hub import Clock, Hub, SiteLink
from fedtwin_server.store import Store

log = logging.getLogger("fedtwin.rounds")
Admit = Callable[[str, pb.Answer], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What an exchange works with.

    Attributes:
        quorum: answers needed.
        deadline_s: seconds until those who are missing are left behind.
        largest_bytes: most bytes that an answer's arrays may have.
    """

    hub: Hub
    store: Store
    blobs: BlobStore
    clock: Clock
    quorum: int
    deadline_s: float
    largest_bytes: int


class Exchange:
    """A set of tasks, one a site, until enough answers are in.

    Args:
        setting: what it works with.
        tasks: by site; their ids are the same again after a restart, so that answers which were
            kept count, and a site resends what it sent before.
        admit: raises a WireError for an answer that is not to be believed.

    Attributes:
        announced: hashes of the contents that answers brought, or promised.
    """

    def __init__(self, setting: Setting, tasks: Mapping[str, pb.Task], admit: Admit) -> None:
        self._setting = setting
        self._tasks = dict(tasks)
        self._admit = admit
        self._answers: dict[str, pb.Answer] = {}
        self._in_hand: dict[str, asyncio.Task[None]] = {}
        self._gone: set[str] = set()
        self._unsettled: list[tuple[SiteLink, pb.Answer]] = []
        self.announced: set[bytes] = set()
        self._news = asyncio.Event()
        self._state = rounds.begin(
            tasks,
            quorum=setting.quorum,
            now=self._seconds(),
            deadline_s=setting.deadline_s,
            lease_s=LEASE_S,
        )

    @property
    def failed(self) -> tuple[str, ...]:
        """Sites whose answers were refused, who cannot, or who have left."""
        return self._state.failed

    @property
    def missing(self) -> tuple[str, ...]:
        """Sites that have not answered."""
        return self._state.missing

    async def run(self) -> dict[str, pb.Answer]:
        """Carry the exchange out; returns the admitted answers by site.

        `settle` must be called after it, whatever its end.

        Raises:
            WireError: every site has answered or failed, and too few have answered.
        """
        self._recall_kept()
        self._setting.hub.watch(self)
        try:
            for site in self._state.missing:
                self.link_changed(site)
            await self._wait()
        finally:
            self._setting.hub.unwatch(self)
            for task in self._in_hand.values():
                task.cancel()
        return self._answers

    def settle(self, *, outcome_is_kept: bool = False) -> None:
        """Write the newest answers down, and only then tell their sites that they have arrived.

        A site that was told may forget its answer, so it must not be lost here.

        Args:
            outcome_is_kept: what was made of the answers is on disk, so they need not be.
        """
        settled, self._unsettled = self._unsettled, []
        if settled and not outcome_is_kept:
            self._write(settled)
        for link, answer in settled:
            link.receipt(answer.task_id, True)

    def link_changed(self, site: str) -> None:
        """Hand a site its task as soon as its link is up."""
        link = self._setting.hub.link(site)
        waits = site in self._state.missing and site not in self._in_hand
        if link is not None and waits and site not in self._gone:
            link.send_task(self._tasks[site])
        self._news.set()

    def left(self, study: str, site: str) -> None:
        """A site has left the study: it is no longer waited for, and never asked again.

        An answer that it gave before still counts.
        """
        task = self._tasks.get(site)
        if task is None or task.study != study:
            return
        self._gone.add(site)
        if site not in self._in_hand:
            self._state = rounds.failed(self._state, site)
            self._news.set()

    def take(self, link: SiteLink, answer: pb.Answer) -> bool:
        """Take an answer to one of the tasks."""
        task = self._tasks.get(link.site)
        if task is None or task.task_id != answer.task_id:
            return False
        if link.site in self._answers:
            if all(site_link.site != link.site for site_link, _ in self._unsettled):
                link.receipt(answer.task_id, True)
        elif link.site not in self._in_hand and link.site in self._state.missing:
            work = asyncio.get_running_loop().create_task(self._consider(link, task, answer))
            self._in_hand[link.site] = work
        elif link.site in self._state.failed:
            link.receipt(answer.task_id, False, "an answer to this task was refused before")
        return True

    async def _consider(self, link: SiteLink, task: pb.Task, answer: pb.Answer) -> None:
        """Admit or refuse an answer; whatever is wrong with it is its site's failure."""
        site = link.site
        try:
            await self._check(link, task, answer)
            self._answers[site] = answer
            self._state = rounds.answered(self._state, site)
            self._unsettled.append((link, answer))
        except FedtwinError as error:
            if link.ended.is_set() and site not in self._gone:
                self._in_hand.pop(site, None)
                self.link_changed(site)
                return
            self._refuse(link, task, answer, str(error))
        except Exception:
            log.exception("an answer of %s could not be judged", site)
            self._refuse(link, task, answer, "the coordinator could not judge it; see its log")
        self._in_hand.pop(site, None)
        self._news.set()

    def _refuse(self, link: SiteLink, task: pb.Task, answer: pb.Answer, reason: str) -> None:
        self._state = rounds.failed(self._state, link.site)
        self._note(task, link.site, f"the answer was refused: {reason}")
        link.receipt(answer.task_id, False, reason)

    async def _check(self, link: SiteLink, task: pb.Task, answer: pb.Answer) -> None:
        if (answer.study, answer.plan_hash, answer.round) != (
            task.study,
            task.plan_hash,
            task.round,
        ):
            raise WireError("the answer belongs to another study, plan or round")
        if answer.WhichOneof("outcome") != "content":
            reason = answer.fault.text[:300] or answer.fault.code[:60] or "no reason given"
            raise WireError(f"the site cannot: {reason}")
        if answer.content.WhichOneof("frames") == "blob":
            ref = blob_ref(answer.content.blob, self._setting.largest_bytes)
            self.announced.add(ref.sha256)
            await link.traffic.fetch(ref)
        await self._admit(link.site, answer)

    def _write(self, settled: list[tuple[SiteLink, pb.Answer]]) -> None:
        with self._setting.store.transaction():
            for link, answer in settled:
                self._setting.store.keep_answer(
                    task_id=answer.task_id,
                    study=answer.study,
                    site=link.site,
                    round_number=answer.round,
                    kind=self._tasks[link.site].kind,
                    answer=answer.SerializeToString(),
                    now=self._setting.clock(),
                )

    def _recall_kept(self) -> None:
        some = next(iter(self._tasks.values()), None)
        if some is None:
            return
        for task_id, site, _, data in self._setting.store.answers(some.study, some.kind):
            task = self._tasks.get(site)
            answer = pb.Answer.FromString(data)
            ref = ref_of(answer.content)
            here = ref is None or self._setting.blobs.has(ref.sha256)
            if task is not None and task.task_id == task_id and here:
                self._answers[site] = answer
                self._state = rounds.answered(self._state, site)

    async def _wait(self) -> None:
        told = False
        while True:
            now = self._seconds()
            self._state = rounds.reach(self._state, self._setting.hub.sites, now)
            verdict = rounds.verdict(self._state, now)
            if verdict == "close":
                return
            if verdict == "stop":
                raise WireError(
                    f"{len(self._state.answered)} of the {self._setting.quorum} answers needed "
                    f"came in; refused or impossible: {', '.join(self._state.failed) or 'none'}"
                )
            if rounds.overdue(self._state, now) and not told:
                told = True
                missing = ", ".join(self._state.missing)
                task = next(iter(self._tasks.values()))
                self._note(task, "", f"the deadline passed without a quorum; waits for {missing}")
            self.settle()
            self._news.clear()
            try:
                async with asyncio.timeout(0.25):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _note(self, task: pb.Task, site: str, text: str) -> None:
        where = f"round {task.round}: " if task.round else ""
        self._setting.store.note(task.study, site, where + text, self._setting.clock())

    def _seconds(self) -> float:
        moment: datetime = self._setting.clock()
        return moment.timestamp()
