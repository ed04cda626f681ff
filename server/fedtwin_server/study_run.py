"""A study's course: gather, count, rounds, evaluation; resumed from the last whole round.

Everything that decides what happens next lies in the store, so that a coordinator that was killed
takes up where it was: closed rounds are closed, answers that were admitted count, and tasks have
the same ids again, to which a site answers with the same bytes.
"""

import asyncio
import hashlib
from collections.abc import Mapping

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import content_bytes
from fedtwin_protocol.errors import FedtwinError, PlanError
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import admit_updates, check_count, check_table
from fedtwin_server.exchange import Admit, Exchange, Setting
from fedtwin_server.hub import Clock, Hub, SiteLink
from fedtwin_server.jury import Court, Jury
from fedtwin_server.round_contents import RoundContents
from fedtwin_server.rules import Rule, Step
from fedtwin_server.store import RoundRecord, Store, StudyRecord
from fedtwin_server.study_record import UPDATES, final_parameters, wanted_blobs

LATECOMER_PATIENCE_S = 10.0
RESUME_PATIENCE_S = 8.0


def task_id(plan_hash: str, kind: str, number: int, site: str) -> str:
    """The name of one site's task; the same after a restart."""
    return hashlib.sha256(f"{plan_hash}/{kind}/{number}/{site}".encode()).hexdigest()[:32]


class StudyRun:
    """One study, from gathering to its last round.

    Args:
        record: the study as it stands in the store.
        plan: its plan.
        rule: how rounds are made.
        hub: the links.
        store: the coordinator's memory.
        blobs: contents.
        clock: the time.
    """

    def __init__(
        self,
        *,
        record: StudyRecord,
        plan: StudyPlan,
        rule: Rule,
        hub: Hub,
        store: Store,
        blobs: BlobStore,
        clock: Clock,
    ) -> None:
        self._record = record
        self._plan = plan
        self._rule = rule
        self._hub = hub
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._counts: dict[str, float] = {}
        self._closing: list[Exchange] = []
        self._uncounted: dict[str, SiteLink | None] = {}
        self._silent: dict[str, tuple[SiteLink, int]] = {}
        self._announced: set[bytes] = set()
        self._counting: asyncio.Task[None] | None = None
        court = Court(
            counts=self._counts,
            participants=self._participants,
            exchange=self._exchange,
            change=self._some_change,
            note=self._note,
        )
        self._contents = RoundContents(plan, store, blobs)
        self._jury = Jury(plan, store, blobs, court)

    async def run(self) -> None:
        """Carry the study to its end; every end is written to the store with its reason."""
        name = self._plan.study
        try:
            await self._gather()
            self._store.set_status(name, "running", "", self._clock())
            await self._begin()
            for number in range(self._next_round(), self._plan.training.rounds + 1):
                await self._round(number)
            self._jury.check_any_good()
            await self._evaluate()
        except FedtwinError as error:
            self._store.set_status(name, "failed", str(error), self._clock())
            self._note(f"the study ended: {error}")
        else:
            self._store.set_status(name, "finished", "", self._clock())
            self._note("all rounds are done")
        finally:
            for exchange in self._closing:  # its round was not made
                exchange.settle()
            if self._counting is not None:
                self._counting.cancel()
            self._blobs.drop_spares()
        self._blobs.remove(self._announced - wanted_blobs(self._store))

    @property
    def _quorum(self) -> int:
        """So many sites must answer."""
        return self._plan.sites.quorum

    async def _begin(self) -> None:
        """What comes before the first round: everybody's count."""
        self._recall_counts()
        await self._make_room(len(self._present()))
        await self._count(self._present(), self._quorum)

    async def _make_room(self, sites: int) -> None:
        size = content_bytes(self._state().parameters)
        if trouble := await self._contents.make_room(size, sites + 1):
            self._note(trouble)

    def _note(self, text: str) -> None:
        self._store.note(self._plan.study, "", text, self._clock())

    # Who takes part

    def _willing(self) -> set[str]:
        decisions = self._store.decisions(self._plan.study)
        return {site for site, take_part in decisions.items() if take_part}

    def _present(self) -> set[str]:
        return self._willing() & set(self._hub.sites)

    def _invited(self) -> set[str]:
        members = self._store.members("site")
        names = {str(member["name"]) for member in members if member["revoked"] is None}
        return names & set(self._plan.sites.invited) if self._plan.sites.invited else names

    async def _gather(self) -> None:
        """Wait for the quorum, then a little longer for those who have not decided.

        Raises:
            PlanError: the quorum can no longer be reached.
        """
        sites = self._plan.sites
        resumed = self._record.status == "running"
        patience = min(sites.gathering_s, RESUME_PATIENCE_S) if resumed else sites.gathering_s
        reached: float | None = None
        while True:
            self._check_possible()
            now = self._clock().timestamp()
            if len(self._present()) >= self._quorum:
                reached = now if reached is None else reached
                decided = set(self._store.decisions(self._plan.study))
                everybody = (resumed or self._invited() <= decided) and (
                    self._willing() <= self._present()
                )
                if everybody or now - reached >= patience:
                    return
            await self._some_change()

    def _check_possible(self) -> None:
        """Give up waiting where nobody can come whom to wait for.

        Raises:
            PlanError: the plan has expired, or too many of those it names have declined.
        """
        plan, done = self._plan, len(self._store.rounds(self._plan.study))
        if plan.expires is not None and plan.expires <= self._clock():
            raise PlanError(
                f"the plan expired on {plan.expires:%Y-%m-%d} with {done} of "
                f"{plan.training.rounds} rounds done"
            )
        named = set(plan.sites.invited) or None
        if not plan.sites.join_late and done:
            named = set(self._counts)
        if named is None:
            return
        decisions = self._store.decisions(plan.study)
        still = [site for site in named if decisions.get(site, True)]
        if len(still) < self._quorum:
            raise PlanError(
                f"{len(still)} sites can still take part, the plan needs {self._quorum}; "
                f"not taking part: {', '.join(sorted(named - set(still)))}"
            )

    async def _some_change(self) -> None:
        self._hub.changed.clear()
        try:
            async with asyncio.timeout(0.2):
                await self._hub.changed.wait()
        except TimeoutError:
            return

    # Rounds

    def _next_round(self) -> int:
        closed = self._store.rounds(self._plan.study, last=1)
        return closed[-1].round + 1 if closed else 1

    def _state(self) -> pb.RoundState:
        closed = self._store.rounds(self._plan.study, last=1)
        if closed:
            return pb.RoundState.FromString(closed[-1].state)
        return pb.RoundState(parameters=pb.Content.FromString(self._record.initial or b""))

    async def _round(self, number: int) -> None:
        started = self._clock()
        state = self._state()
        new, used = await self._jury.round(number, state, lambda: self._step(number, state))
        closed = self._clock()
        stale = [
            answer for kind in UPDATES for *_, answer in self._store.answers(self._plan.study, kind)
        ]
        self._store.close_round(
            self._plan.study,
            RoundRecord(
                round=number,
                state=new.SerializeToString(),
                sites=used,
                closed=closed.isoformat(),
                seconds=(closed - started).total_seconds(),
            ),
        )
        closing, self._closing = self._closing, []
        for exchange in closing:
            exchange.settle(outcome_is_kept=True)
        self._contents.drop(stale, number, self._announced)

    async def _step(self, number: int, state: pb.RoundState) -> Step:
        """Make a round with everybody who is here."""
        sites = await self._participants(number, self._kept("train", number))
        counts = {site: self._counts[site] for site in sites}

        async def ask(kind: str, contents: Mapping[str, pb.Content]) -> Mapping[str, pb.Answer]:
            admit = admit_updates(
                self._plan,
                state.parameters,
                self._rule.expected(state.parameters),
                self._rule.metrics,
                self._counts,
                self._blobs,
            )
            return await self._exchange(
                kind, number, contents, admit, self._quorum, content_bytes(state.parameters)
            )

        return await self._rule.step(number, state, counts, ask)

    def _kept(self, kind: str, number: int) -> set[str]:
        """Sites whose answers were admitted before a restart: they count, though not here now."""
        kept = self._store.answers(self._plan.study, kind)
        return {site for _, site, asked, _ in kept if asked == number} & set(self._counts)

    async def _participants(self, number: int, kept: set[str]) -> set[str]:
        """Sites that are here, willing and counted, and those whose answers are kept.

        Waits while they are fewer than the quorum. A site that let a deadline pass is left out
        until it speaks again, as long as the others are enough.
        """
        told = False
        while True:
            if self._plan.sites.join_late or number == 1:
                self._count_latecomers()
            sites = (self._present() & set(self._counts)) | kept
            speaking = {site for site in sites if site in kept or not self._is_silent(site)}
            if len(speaking) >= self._quorum:
                return speaking
            if len(sites) >= self._quorum:
                return sites
            self._check_possible()
            if not told:
                told = True
                text = f"round {number} waits: {len(sites)} of {self._quorum} sites are here"
                self._note(text)
            await self._some_change()

    def _is_silent(self, site: str) -> bool:
        link, answers = self._silent.get(site, (None, 0))
        return link is not None and self._hub.link(site) is link and link.answers == answers

    async def _exchange(
        self,
        kind: str,
        number: int,
        contents: Mapping[str, pb.Content],
        admit: Admit,
        quorum: int,
        size: int,
    ) -> dict[str, pb.Answer]:
        plan = self._plan
        tasks = {
            site: pb.Task(
                task_id=task_id(plan.hash, kind, number, site),
                study=plan.study,
                plan_hash=bytes.fromhex(plan.hash),
                round=number,
                kind=kind,
                content=content,
            )
            for site, content in contents.items()
        }
        patience = plan.sites.deadline_s if quorum else LATECOMER_PATIENCE_S
        setting = Setting(
            hub=self._hub,
            store=self._store,
            blobs=self._blobs,
            clock=self._clock,
            quorum=quorum,
            deadline_s=patience,
            largest_bytes=2 * size + 1024,
        )
        exchange = Exchange(setting, tasks, admit)
        try:
            answers = await exchange.run()
        except BaseException:
            exchange.settle()
            raise
        finally:
            self._remember(exchange, counting=kind == "query.cohort")
        if kind == "train":
            self._closing.append(exchange)
        else:
            exchange.settle()
        return answers

    def _remember(self, exchange: Exchange, *, counting: bool) -> None:
        """Who did not answer, and what may still be on its way from them."""
        self._announced |= exchange.announced
        if counting:
            self._uncounted |= {site: self._hub.link(site) for site in exchange.failed}
            return
        for site in exchange.missing:
            if (link := self._hub.link(site)) is not None:
                self._silent[site] = (link, link.answers)

    # Counts

    async def _count(self, sites: set[str], quorum: int) -> None:
        """Ask sites for their noised cohort counts, once in a study."""
        newcomers = sites - set(self._counts)
        if not newcomers:
            return

        async def admit(site: str, answer: pb.Answer) -> None:
            self._counts[site] = check_count(answer.content)

        contents = dict.fromkeys(newcomers, pb.Content())
        still_needed = max(0, quorum - len(self._counts))
        await self._exchange("query.cohort", 0, contents, admit, still_needed, 0)

    def _count_latecomers(self) -> None:
        """Ask newcomers beside the rounds, so that a silent one holds nobody up.

        One that was refused is asked again when it has dialled again.
        """
        newcomers = {
            site
            for site in self._present() - set(self._counts)
            if site not in self._uncounted or self._uncounted[site] is not self._hub.link(site)
        }
        if newcomers and (self._counting is None or self._counting.done()):
            self._counting = asyncio.get_running_loop().create_task(self._count(newcomers, 0))

    def _recall_counts(self) -> None:
        for _, site, _, data in self._store.answers(self._plan.study, "query.cohort"):
            self._counts[site] = check_count(pb.Answer.FromString(data).content)

    # Evaluation

    async def _evaluate(self) -> None:
        plan = self._plan
        if plan.privacy.evaluation_noise is None:
            return
        final = final_parameters(self._store, plan, self._blobs)

        async def admit(site: str, answer: pb.Answer) -> None:
            del site
            check_table(answer.content, plan)

        number = plan.training.rounds
        try:
            sites = await self._participants(number + 1, self._kept("evaluate", number))
            await self._exchange(
                "evaluate",
                number,
                dict.fromkeys(sites, final),
                admit,
                self._quorum,
                content_bytes(final),
            )
        except FedtwinError as error:
            self._note(f"no evaluation: {error}")
