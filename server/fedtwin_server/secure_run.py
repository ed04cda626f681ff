"""A study in mode `secure`: the same course, but every answer is a secure sum over the sites.

The coordinator learns how many patients there are in all, the sum of each round, and the summed
hold-out table; of one site it learns that it took part. A round closes with any `threshold` sites
of those that the plan names.
"""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Final

from fedtwin_protocol.content import content_bytes
from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.secure_messages import KEYS, kind_of
from fedtwin_protocol.secure_terms import SecureTerms, secure_terms, sum_label
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.bounds import COUNT_SLACK, check_sum
from fedtwin_server.exchange import Admit
from fedtwin_server.rules import Step, SumRule
from fedtwin_server.secure_collector import SecureCollector, Summed, SumWish
from fedtwin_server.study_record import final_parameters
from fedtwin_server.study_run import StudyRun

COUNT, TRAIN, EVALUATE = "query.cohort", "train", "evaluate"
STEP_BYTES: Final = 64 * 1024


class SecureRun(StudyRun):
    """One secure study; the arguments are those of `StudyRun`, and its rule is a `SumRule`."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._terms: SecureTerms = secure_terms(self._plan)
        self._patients = 0.0
        self._counted: tuple[str, ...] = ()

    @property
    def _quorum(self) -> int:
        return max(self._plan.sites.quorum, self._terms.threshold)

    async def _begin(self) -> None:
        """The number of patients of all sites together, once in a study."""
        self._counts.update(dict.fromkeys(self._terms.sites, 1.0))
        await self._make_room(len(self._present()))
        summed = await self._sum(COUNT, 0, pb.Content(), 1, 1.0)
        smallest = self._plan.sites.smallest_cohort * len(summed.sites)
        self._patients = max(float(round(summed.total[0])), float(smallest))
        self._counted = summed.sites
        mean = self._patients / len(summed.sites)
        self._counts.update(dict.fromkeys(self._terms.sites, mean))
        self._store.keep_total(self._plan.study, COUNT, summed.total.tolist(), summed.sites)

    async def _step(self, number: int, state: pb.RoundState) -> Step:
        """Make a round of whoever stays to its end.

        Raises:
            RefusedSumError: the sum is longer than all patients together can make it.
        """
        if not isinstance(self._rule, SumRule):
            raise WireError("a secure study adds sums up; its rule is another")
        values = sum(spec.size for spec in self._rule.expected(state.parameters))
        largest = self._plan.privacy.clipping_norm
        summed = await self._sum(TRAIN, number, state.parameters, values, largest)
        patients = self._patients * len(summed.sites) / len(self._counted)
        self._check(summed, patients)
        return self._rule.advance(state, summed.total / patients, summed.sites)

    def _check(self, summed: Summed, patients: float) -> None:
        """Hold a sum against what all patients in it can make.

        Raises:
            RefusedSumError: it is longer.
        """
        privacy, sites = self._plan.privacy, len(summed.sites)
        excess = sqrt(sites / self._terms.honest_present)
        rounding = 1 + sqrt(summed.total.size) / self._terms.scale
        check_sum(
            summed.total,
            patients=patients + COUNT_SLACK * privacy.cohort_count_noise * excess + sites,
            clipping_norm=privacy.clipping_norm * rounding,
            noise_sd=privacy.noise_multiplier * privacy.clipping_norm * excess,
            whose="the sum of all sites",
        )

    async def _evaluate(self) -> None:
        plan = self._plan
        if plan.privacy.evaluation_noise is None:
            return
        final = final_parameters(self._store, plan, self._blobs)
        cells = plan.evaluation.bins * 2
        try:
            summed = await self._sum(EVALUATE, plan.training.rounds, final, cells, 1.0)
        except FedtwinError as error:
            self._note(f"no evaluation: {error}")
            return
        self._store.keep_total(plan.study, EVALUATE, summed.total.tolist(), summed.sites)

    async def _sum(
        self, purpose: str, number: int, content: pb.Content, values: int, largest: float
    ) -> Summed:
        """One secure sum, taken up where it was before a restart."""
        label = sum_label(self._plan, purpose, number, self._terms.sites)
        part_bytes = values * self._terms.modulus_bits // 8

        async def ask(
            kind: str, contents: Mapping[str, pb.Content], admit: Admit, quorum: int
        ) -> Mapping[str, pb.Answer]:
            size = max(part_bytes, content_bytes(content), STEP_BYTES)
            return await self._exchange(kind, number, contents, admit, quorum, size)

        wish = SumWish(
            label=label,
            purpose=purpose,
            terms=self._terms,
            content=content,
            values=values,
            largest=largest,
        )
        present = await self._here(purpose, number, label)
        return await SecureCollector(self._store, self._blobs, ask).collect(wish, present)

    async def _here(self, purpose: str, number: int, label: str) -> Sequence[str]:
        """Whom to ask for keys: those who were asked before a restart, or whoever is here now."""
        began = self._store.step_sites(label, KEYS)
        if began is not None:
            return began
        kept = self._kept(kind_of(purpose, KEYS), number)
        found = await self._participants(max(number, 1), kept)
        return sorted(found & set(self._terms.sites))

    def _count_latecomers(self) -> None:
        """Nobody is counted alone; a latecomer joins the next sum."""
