"""A study in mode `secure`: the same course, but every answer is a secure sum over the sites.

The coordinator learns how many patients there are in all, the sum of each round, and the summed
hold-out table; of one site it learns that it took part. A round closes with any `threshold` sites
of those that the plan names.
"""

import asyncio
from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any, Final

from fedtwin_protocol.content import content_bytes
from fedtwin_protocol.errors import FedtwinError, WireError
from fedtwin_protocol.secure_terms import (
    SecureTerms,
    secure_terms,
    sum_label,
    training_groups,
)
from fedtwin_protocol.sum_steps import KEYS, kind_of
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.bounds import COUNT_SLACK, check_sum
from fedtwin_server.exchange import Admit
from fedtwin_server.robust import mean_per_patient
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
        self._check_count(summed)
        smallest = self._plan.sites.smallest_cohort * len(summed.sites)
        self._patients = max(float(round(summed.total[0])), float(smallest))
        self._counted = summed.sites
        mean = self._patients / len(summed.sites)
        self._counts.update(dict.fromkeys(self._terms.sites, mean))
        self._store.keep_total(self._plan.study, COUNT, summed.total.tolist(), summed.sites)

    def _check_count(self, summed: Summed) -> None:
        """Hold the number of patients against what the sites of a plan can have.

        Raises:
            WireError: it is larger: some site counted what it cannot have, and every step would
                come to nothing.
        """
        sites = len(summed.sites)
        noise = self._plan.privacy.cohort_count_noise * sqrt(sites / self._terms.honest_present)
        most = self._plan.sites.largest_cohort * sites + COUNT_SLACK * noise
        if (count := float(summed.total[0])) > most:
            raise WireError(
                f"the sites count {count:.4g} patients together; {sites} of at most "
                f"{self._plan.sites.largest_cohort} each (sites.largest_cohort) have {most:.4g}: "
                "somebody counted what no hospital has; a smaller largest_cohort holds a liar "
                "closer"
            )

    async def _step(self, number: int, state: pb.RoundState) -> Step:
        """Make a round of whoever stays to its end; in groups, where the plan has them.

        Raises:
            RefusedSumError: the sum is longer than all patients together can make it.
            WireError: too few sites, or groups, took part.
        """
        if not isinstance(self._rule, SumRule):
            raise WireError("a secure study adds sums up; its rule is another")
        groups = training_groups(self._plan, number)
        found = await asyncio.gather(
            *(self._group_sum(number, state, terms) for terms in groups), return_exceptions=True
        )
        sums = {}
        for summed in found:
            if isinstance(summed, BaseException):
                self._without(number, summed, len(groups))
            else:
                sums[" ".join(summed.sites)] = summed
        if 2 * len(sums) <= len(groups):
            raise WireError(f"round {number}: only {len(sums)} of {len(groups)} groups made a sum")
        patients = {name: self._patients_of(one) for name, one in sums.items()}
        mean = mean_per_patient(
            {name: one.total for name, one in sums.items()},
            patients,
            self._plan.aggregation.robust,
        )
        sites = [site for one in sums.values() for site in one.sites]
        return self._rule.advance(state, mean, sum(patients.values()), sites)

    async def _group_sum(self, number: int, state: pb.RoundState, terms: SecureTerms) -> Summed:
        """The sum of one group of sites (of all, where the plan has one group), if it can be.

        Raises:
            RefusedSumError: it is longer than all patients together can make it.
            WireError: too few of its sites took part.
        """
        values = sum(spec.size for spec in self._rule.expected(state.parameters))
        largest = self._plan.privacy.clipping_norm
        summed = await self._sum(TRAIN, number, state.parameters, values, largest, terms)
        privacy, sites = self._plan.privacy, len(summed.sites)
        # How many patients one group has is not known, but that all together have no more.
        whole = len(terms.sites) == len(self._terms.sites)
        patients = self._patients_of(summed) if whole else self._patients
        unsure = sqrt(len(self._counted) / self._terms.honest_present)
        excess = sqrt(sites / terms.honest_present)
        rounding = 1 + sqrt(summed.total.size) / terms.scale
        check_sum(
            summed.total,
            patients=patients + COUNT_SLACK * privacy.cohort_count_noise * unsure + sites,
            clipping_norm=privacy.clipping_norm * rounding,
            noise_sd=privacy.noise_multiplier * privacy.clipping_norm * excess,
            whose="the sum of all sites" if whole else f"the sum of {', '.join(summed.sites)}",
        )
        return summed

    def _without(self, number: int, error: BaseException, groups: int) -> None:
        """A group made no sum: the round goes on with the others, if there are others."""
        if groups == 1 or not isinstance(error, FedtwinError):
            raise error
        self._note(f"round {number} goes on without one group: {error}")

    def _patients_of(self, summed: Summed) -> float:
        return self._patients * len(summed.sites) / len(self._counted)

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
        self,
        purpose: str,
        number: int,
        content: pb.Content,
        values: int,
        largest: float,
        terms: SecureTerms | None = None,
    ) -> Summed:
        """One secure sum, taken up where it was before a restart."""
        terms = terms or self._terms
        label = sum_label(self._plan, purpose, number, terms.sites)
        part_bytes = values * terms.modulus_bits // 8

        async def ask(
            kind: str, contents: Mapping[str, pb.Content], admit: Admit, quorum: int
        ) -> Mapping[str, pb.Answer]:
            size = max(part_bytes, content_bytes(content), STEP_BYTES)
            return await self._exchange(kind, number, contents, admit, quorum, size)

        wish = SumWish(
            label=label,
            purpose=purpose,
            terms=terms,
            content=content,
            values=values,
            largest=largest,
        )
        present = await self._here(purpose, number, label, terms)
        return await SecureCollector(self._store, self._blobs, ask).collect(wish, present)

    async def _here(
        self, purpose: str, number: int, label: str, terms: SecureTerms
    ) -> Sequence[str]:
        """Whom to ask for keys: those who were asked before a restart, or whoever is here now."""
        began = self._store.step_sites(label, KEYS)
        if began is not None:
            return began
        kept = self._kept(kind_of(purpose, KEYS), number)
        found = await self._participants(max(number, 1), kept)
        return sorted(found & set(terms.sites))

    def _count_latecomers(self) -> None:
        """Nobody is counted alone; a latecomer joins the next sum."""
