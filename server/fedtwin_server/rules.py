"""From updates to the next model: the rules that are sums.

`SumRule`: the sites' clipped, noised gradient sums are added and divided by the number of patients
the sites reported, times the rate they are sampled at; one gradient step with momentum and an L2
penalty follows (Robbins-Monro with heavy ball; the penalty touches no intercept or bias, which need
no data). Of a study of moments the sum itself is kept, with how many sites are in it; what follows
from it is worked out by whoever reads the release. `MeanRule`: the sites' parameters are averaged,
weighted by the same counts (McMahan et al. 2017, algorithm 1, with public weights). Both are
post-processing of what the sites have noised.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from fedtwin_protocol.blobs import BlobStore
from fedtwin_protocol.content import content_heads, make_content, read_content, weighted_mean
from fedtwin_protocol.parameters import SITES, unflatten
from fedtwin_protocol.payload import Array, Payload
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.study_population import MECHANISM as MOMENTS
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import ArraySpec, check_weight
from fedtwin_server.bounds import site_noise_sd, usual_norm
from fedtwin_server.robust import mean_per_patient

GRADIENT_SUM = "gradient_sum"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A round's outcome: the new parameters, the rule's memory, and who contributed."""

    parameters: pb.Content
    memory: pb.Content
    sites: tuple[str, ...]


Ask = Callable[[str, Mapping[str, pb.Content]], Awaitable[Mapping[str, pb.Answer]]]


class Rule(Protocol):
    """How a round is made from what the sites answer."""

    @property
    def metrics(self) -> tuple[str, ...]:
        """Numbers that it reads of an answer beside the arrays and the weight."""

    def expected(self, parameters: pb.Content) -> list[ArraySpec]:
        """The arrays of a site's answer."""

    async def step(
        self, number: int, state: pb.RoundState, counts: Mapping[str, float], ask: Ask
    ) -> Step:
        """One round with the sites in `counts` (their reported cohort counts)."""


class SumRule:
    """Gradient sums in, one step of the coordinator's optimiser out."""

    metrics: tuple[str, ...] = ()

    def __init__(self, plan: StudyPlan, blobs: BlobStore) -> None:
        self._plan = plan
        self._blobs = blobs

    def expected(self, parameters: pb.Content) -> list[ArraySpec]:
        """One flat sum, as long as all parameters together."""
        heads = content_heads(parameters)
        values = sum(head.size for head in heads if head.name != SITES)
        return [ArraySpec(name=GRADIENT_SUM, dtype="float64", shape=(values,))]

    async def step(
        self, number: int, state: pb.RoundState, counts: Mapping[str, float], ask: Ask
    ) -> Step:
        """One round; `number` is not used, because every round is alike."""
        del number
        answers = await ask("train", dict.fromkeys(counts, state.parameters))
        patients = sum(counts[site] for site in answers)
        return self.advance(state, self._mean(answers, counts), patients, answers)

    def advance(
        self, state: pb.RoundState, mean: Array, patients: float, sites: Iterable[str]
    ) -> Step:
        """The coordinator's step from a round's sum.

        Args:
            state: before the round.
            mean: the sum over the number of patients that was reported with noise, (values,).
            patients: that number.
            sites: whose patients they are.
        """
        if self._plan.training.mechanism == MOMENTS:
            return self._kept(state, mean * patients, tuple(sorted(sites)))
        mean = mean / self._plan.privacy.sampling_rate
        parameters = read_content(state.parameters, self._blobs).arrays["arrays"]
        velocity = self._velocity(state.memory, sum(array.size for array in parameters.values()))
        velocity = self._plan.training.momentum * velocity + mean
        moved: dict[str, Array] = {}
        offset = 0
        for name, array in parameters.items():
            part = velocity[offset : offset + array.size]
            offset += array.size
            if not name.endswith(("intercept", "bias")):
                part += self._plan.model.l2 * array.ravel()
            step = self._plan.training.learning_rate * part.reshape(array.shape)
            moved[name] = (array - step).astype(array.dtype)
        return Step(
            parameters=make_content(Payload(arrays={"arrays": moved}), self._blobs),
            memory=make_content(Payload(arrays={"memory": {"velocity": velocity}}), self._blobs),
            sites=tuple(sorted(sites)),
        )

    def _kept(self, state: pb.RoundState, total: Array, sites: tuple[str, ...]) -> Step:
        """The sum itself, in the arrays of the model, beside how many sites are in it."""
        like = read_content(state.parameters, self._blobs).arrays["arrays"]
        summed = {name: array for name, array in like.items() if name != SITES}
        arrays = unflatten(total, summed) | {SITES: np.array([float(len(sites))])}
        return Step(
            parameters=make_content(Payload(arrays={"arrays": arrays}), self._blobs),
            memory=pb.Content(),
            sites=sites,
        )

    def _mean(self, answers: Mapping[str, pb.Answer], counts: Mapping[str, float]) -> Array:
        """A patient's mean part, of sums that are no longer than they usually are.

        Moments all pull one way, and are left as they were admitted.
        """
        plan, sums = self._plan, {}
        shortened = plan.training.mechanism != MOMENTS
        for site, answer in answers.items():
            arrays = read_content(answer.content, self._blobs).arrays["arrays"]
            found = np.asarray(arrays[GRADIENT_SUM])
            usual = usual_norm(
                found.size, counts[site], plan.privacy.clipping_norm, site_noise_sd(plan)
            )
            too_long = usual / max(float(np.linalg.norm(found)), 1e-300)
            sums[site] = found * min(1.0, too_long) if shortened else found
        return mean_per_patient(sums, counts, plan.aggregation.robust)

    def _velocity(self, memory: pb.Content, values: int) -> Array:
        if not memory.records:
            return np.zeros(values)
        return np.array(read_content(memory, self._blobs).arrays["memory"]["velocity"], float)


class MeanRule:
    """Parameters in, their weighted mean out; piece by piece, so that memory stays flat."""

    metrics: tuple[str, ...] = ()

    def __init__(self, plan: StudyPlan, blobs: BlobStore) -> None:
        self._plan = plan
        self._blobs = blobs

    def expected(self, parameters: pb.Content) -> list[ArraySpec]:
        """The parameters' own table."""
        return specs_of(parameters)

    async def step(
        self, number: int, state: pb.RoundState, counts: Mapping[str, float], ask: Ask
    ) -> Step:
        """One round; `number` is not used, because every round is alike."""
        del number
        answers = await ask("train", dict.fromkeys(counts, state.parameters))
        slack = 6 * self._plan.privacy.cohort_count_noise
        weights = [
            check_weight(answer.content, counts[site], slack) for site, answer in answers.items()
        ]
        contents = [answer.content for answer in answers.values()]
        return Step(
            parameters=weighted_mean(contents, weights, self._blobs),
            memory=pb.Content(),
            sites=tuple(sorted(answers)),
        )


def specs_of(parameters: pb.Content) -> list[ArraySpec]:
    """The arrays of a content, as expectations."""
    return [
        ArraySpec(name=head.name, dtype=head.dtype.name, shape=head.shape)
        for head in content_heads(parameters)
    ]
