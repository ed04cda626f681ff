"""What stands between a round's sum and the model: bounds, votes, and the last good model.

A round is made; if its sum is refused as an attack, or the votes on its model go against it, it is
thrown away: the last good model and the rule's memory as of that model stay, the journal says so,
and the next round starts from there. What is released was voted good, where the plan buys votes.
The votes' rule stands in `votes.py`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import content_bytes, make_content, read_content, ref_of
from fedtwin_protocol.errors import PlanError, WireError
from fedtwin_protocol.payload import Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_protocol.votes import FEWEST_VOTERS, GOOD, VOTE_TASK
from fedtwin_server.admission import check_vote
from fedtwin_server.bounds import RefusedSumError
from fedtwin_server.candidates import Candidate, CandidateBook
from fedtwin_server.exchange import Admit
from fedtwin_server.rules import Step
from fedtwin_server.store import Store
from fedtwin_server.votes import Judgement, heard, judge, total

Make = Callable[[], Awaitable[Step]]
Exchanging = Callable[
    [str, int, Mapping[str, pb.Content], Admit, int, int],
    Awaitable[Mapping[str, pb.Answer]],
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Court:
    """What a jury needs of the study that it judges for.

    Attributes:
        counts: the noised cohort count that each site has reported so far.
        participants: sites that are here for a round, and those given; waits for the quorum.
        exchange: carries tasks out: kind, round, contents by site, what is admitted, answers
            needed, and bytes of the content that is asked about.
        change: waits until something has changed, or a moment.
        note: writes a line of the study's journal.
    """

    counts: Mapping[str, float]
    participants: Callable[[int, set[str]], Awaitable[set[str]]]
    exchange: Exchanging
    change: Callable[[], Awaitable[None]]
    note: Callable[[str], None]


class Jury:
    """Judges the rounds of one study.

    Args:
        plan: the study's.
        store: the coordinator's memory.
        blobs: contents.
        court: reaches the sites.
    """

    def __init__(self, plan: StudyPlan, store: Store, blobs: BlobStore, court: Court) -> None:
        self._plan = plan
        self._store = store
        self._blobs = blobs
        self._court = court
        self._book = CandidateBook(store.connection)

    async def round(
        self, number: int, good: pb.RoundState, make: Make
    ) -> tuple[pb.RoundState, tuple[str, ...]]:
        """Make a round and judge it; taken up where it was after a crash.

        Args:
            number: of the round, from 1.
            good: the last good model, with the rule's memory as of it.
            make: makes the round.

        Returns:
            The state to go on from, and the sites whose updates are in it: none of them if the
            round was thrown away.

        Raises:
            PlanError: too few sites can be heard for any vote.
        """
        voting = self._plan.privacy.vote_noise is not None
        if voting:
            await self._voters(number)  # before a round is paid for that nobody could judge
        found = self._book.get(self._plan.hash, number) or await self._made(number, make)
        if found.state is not None and voting:
            self._book.write(self._plan.hash, found)
            self._book.forget_states(self._plan.hash, number)
        if not found.verdict:
            found = await self._judged(found, good)
        if voting or found.verdict == "thrown away":
            self._book.write(self._plan.hash, found)
        if found.verdict == "kept" and found.state is not None:
            return pb.RoundState.FromString(found.state), found.sites
        self._court.note(f"round {number} went wrong: {found.reason}")
        self._clear(found, good)
        return good, ()

    def check_any_good(self) -> None:
        """Whether there is anything to release, after the last round.

        Raises:
            PlanError: there is not; says why.
        """
        found = self._book.all(self._plan.hash)
        wrong = sum(one.verdict == "thrown away" for one in found)
        if wrong >= self._plan.training.rounds:
            raise PlanError(
                f"none of the {wrong} rounds made a model that could be kept, so nothing is "
                "released; the journal says what went wrong in each"
            )
        overall = total(self._judgement(one.votes) for one in found if one.votes)
        if overall is not None and not overall.kept:
            raise PlanError(
                "over all rounds together the hospitals' held-out patients are worse off with the "
                "last model than with the first, by small steps that no single round showed: "
                "nothing is released"
            )

    async def _made(self, number: int, make: Make) -> Candidate:
        try:
            step = await make()
        except RefusedSumError as error:
            return Candidate(
                round=number, state=None, sites=(), verdict="thrown away", reason=str(error)
            )
        state = pb.RoundState(parameters=step.parameters, memory=step.memory)
        return Candidate(round=number, state=state.SerializeToString(), sites=step.sites)

    async def _judged(self, candidate: Candidate, good: pb.RoundState) -> Candidate:
        if self._plan.privacy.vote_noise is None:
            return replace(candidate, verdict="kept")
        state = pb.RoundState.FromString(candidate.state or b"")
        content = await asyncio.to_thread(
            both_models, state.parameters, good.parameters, self._blobs
        )
        try:
            votes = await self._votes(candidate.round, content)
        except WireError as error:
            return replace(
                candidate, verdict="thrown away", reason=f"it could not be judged: {error}"
            )
        finally:
            self._blobs.remove(_hashes([content]))
        verdict = self._judgement(votes)
        if verdict.kept:
            return replace(candidate, verdict="kept", votes=votes)
        return replace(candidate, verdict="thrown away", reason=in_words(verdict), votes=votes)

    async def _votes(self, number: int, content: pb.Content) -> dict[str, float]:
        async def admit(site: str, answer: pb.Answer) -> None:
            del site
            check_vote(answer.content)

        voters = await self._voters(number)
        contents = dict.fromkeys(sorted(voters), content)
        answers = await self._court.exchange(
            VOTE_TASK, number, contents, admit, FEWEST_VOTERS, content_bytes(content)
        )
        return {site: check_vote(answer.content) for site, answer in sorted(answers.items())}

    async def _voters(self, number: int) -> set[str]:
        """Sites that are here, or whose votes are kept, and are heard; waits for three of them."""
        told = False
        while True:
            kept = self._store.answers(self._plan.study, VOTE_TASK)
            before = {site for _, site, asked, _ in kept if asked == number}
            here = await self._court.participants(number, before) & self._heard()
            if len(here) >= FEWEST_VOTERS:
                return here
            self._check_heard()
            if not told:
                told = True
                self._court.note(
                    f"round {number} waits for votes: {len(here)} of the {FEWEST_VOTERS} sites "
                    "needed are here that can be heard"
                )
            await self._court.change()

    def _judgement(self, votes: Mapping[str, float]) -> Judgement:
        return judge(votes, self._noise_sd)

    @property
    def _noise_sd(self) -> float:
        """Sd of the noise in a vote."""
        noised = self._plan.privacy.mode != "none"
        return (self._plan.privacy.vote_noise or 0.0) if noised else 0.0

    def _heard(self) -> set[str]:
        """Sites that take part and can be heard."""
        decisions = self._store.decisions(self._plan.study)
        found = heard(self._court.counts, self._plan.cohort.holdout_fraction, self._noise_sd)
        return {site for site in found if decisions.get(site, True)}

    def _check_heard(self) -> None:
        """Give up where no more votes can come.

        Raises:
            PlanError: too few sites take part that can be heard, and nobody else is to come.
        """
        found = len(self._heard())
        decisions = self._store.decisions(self._plan.study)
        to_come = {site for site, joins in decisions.items() if joins} - set(self._court.counts)
        if found >= FEWEST_VOTERS or to_come:
            return
        raise PlanError(
            f"{found} of the {len(self._court.counts)} sites take part and have enough held-out "
            "patients for their votes to be heard through noise of sd "
            f"{self._plan.privacy.vote_noise:g}, and a judgement needs {FEWEST_VOTERS}: state a "
            "larger epsilon or fewer rounds and lower privacy.vote_noise, hold out more patients, "
            "or invite more sites"
        )

    def _clear(self, candidate: Candidate, good: pb.RoundState) -> None:
        """Remove the contents of a candidate that was thrown away, once that is on disk."""
        if candidate.state is not None:
            state = pb.RoundState.FromString(candidate.state)
            kept = _hashes([good.parameters, good.memory])
            self._blobs.remove(_hashes([state.parameters, state.memory]) - kept)


def both_models(candidate: pb.Content, good: pb.Content, blobs: BlobStore) -> pb.Content:
    """The content of a vote's task: the candidate, and the last good model to compare it with."""
    models = {
        "arrays": read_content(candidate, blobs).arrays["arrays"],
        GOOD: read_content(good, blobs).arrays["arrays"],
    }
    return make_content(Payload(arrays=models), blobs)


def in_words(judgement: Judgement) -> str:
    """Why a candidate was thrown away."""
    return (
        f"{judgement.worse} of {judgement.voters} hospitals' held-out patients were worse off; its "
        "sum was thrown away and the last good model stays"
    )


def _hashes(contents: Sequence[pb.Content]) -> set[bytes]:
    return {ref.sha256 for content in contents if (ref := ref_of(content)) is not None}
