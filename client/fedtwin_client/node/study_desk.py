"""What a node does with an offered study: verify, price, judge, build the cohort, reserve, decide.

In this order, and each step only if the one before it let the study pass. Until the hospital has
accepted, nothing about the study leaves but a refusal without its reason.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.policy import Policy, judge, load_policy
from fedtwin_client.node.renyi import ORDERS
from fedtwin_client.node.secure_sums import SecureSums
from fedtwin_client.node.studies import KnownStudies, KnownStudy
from fedtwin_client.node.workers import Clock, Workers
from fedtwin_client.training.pseudonym_list import Members, pack, unpack
from fedtwin_protocol.errors import (
    BudgetError,
    CohortError,
    FedtwinError,
    PlanError,
    SignatureError,
)
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.signing import PLAN_TYPE, envelope_from_bytes, verify
from fedtwin_protocol.study import StudyPlan, plan_from_bytes
from fedtwin_protocol.v1 import exchange_pb2 as pb

log = logging.getLogger("fedtwin.studies")
LIVE = ("open", "running")
Announce = Callable[[KnownStudy, bool], None]


class StudyDesk:
    """Decides on studies.

    Args:
        home: the node's folder.
        studies: the node's memory of them.
        ledger: the privacy ledger.
        workers: where prices and cohorts are computed.
        sums: this site's part in secure sums, and its signing key.
        clock: the time.
    """

    def __init__(
        self,
        home: NodeHome,
        studies: KnownStudies,
        ledger: Ledger,
        workers: Workers,
        sums: SecureSums,
        clock: Clock,
    ) -> None:
        self._home = home
        self._settings = home.settings()
        self._studies = studies
        self._ledger = ledger
        self._workers = workers
        self._sums = sums
        self._clock = clock

    async def hear(self, offer: pb.Offer, announce: Announce) -> None:
        """Take an offer of the catalogue and do what is next for it."""
        try:
            plan = self._verified(offer.plan_envelope)
        except FedtwinError as error:
            log.warning("refused an offered study: %s", error)
            return
        for older in self._studies.replaced_by(plan):
            await self._end(older)
        study = self._studies.hear(plan, offer.plan_envelope, offer.state, self._clock())
        await self.proceed(study, announce)

    async def proceed(self, study: KnownStudy, announce: Announce) -> None:
        """Take a study one step further, if it is the node's turn."""
        if study.state not in LIVE:
            await self._end(study)
        elif study.decision == "new":
            await self._judge(study, announce)
        elif study.decision == "approved":
            await self._accept(study, study.reasons, announce)
        elif study.decision == "accepted":
            announce(study, True)
        elif study.decision == "declined":
            announce(study, False)
            await self._workers.stop(study.plan_hash)
            self._give_back(study)

    def _verified(self, envelope: bytes) -> StudyPlan:
        signed = envelope_from_bytes(envelope)
        try:
            plan = plan_from_bytes(verify(signed, PLAN_TYPE, self._home.trust()))
        except SignatureError:
            # What was verified here before a signer's key was replaced stays the same plan.
            if not any(known.envelope == envelope for known in self._studies.all()):
                raise
            plan = plan_from_bytes(signed.body)
        if plan.consortium != self._settings.consortium:
            raise PlanError(
                f"the plan is one of {plan.consortium}; this node is a member of "
                f"{self._settings.consortium}"
            )
        return plan

    async def _judge(self, study: KnownStudy, announce: Announce) -> None:
        plan = study.plan
        try:
            policy = load_policy(self._home.policy_file)
            epsilon, _ = await self._price(plan)
            if not self._workers.installed(plan.model.family):
                raise PlanError(f"model family '{plan.model.family}' is not installed on this node")
            self._check_secure(plan)
        except FedtwinError as error:
            self._decline(study, str(error), announce)
            return
        verdict = judge(policy, plan, epsilon, self._clock())
        log.info("study %s: the policy says %s", plan.study, verdict.decision)
        if verdict.decision == "refuse":
            self._decline(study, "\n".join(verdict.reasons), announce)
        elif verdict.decision == "ask":
            self._studies.decide(study.plan_hash, "held", verdict.reasons, self._clock())
        else:
            await self._accept(study, "\n".join(verdict.reasons), announce)

    async def _accept(self, study: KnownStudy, reasons: str, announce: Announce) -> None:
        plan = study.plan
        try:
            policy = load_policy(self._home.policy_file)
            _, reservation = await self._price(plan)
            members = await self._members(plan, policy, reservation)
            self._ledger.reserve(reservation, policy.limits, self._clock(), members)
        except FedtwinError as error:
            self._decline(study, str(error), announce)
            return
        self._studies.decide(
            study.plan_hash, "accepted", tuple(reasons.splitlines()), self._clock()
        )
        log.info("study %s is accepted", plan.study)
        announce(study, True)

    def _check_secure(self, plan: StudyPlan) -> None:
        """In mode `secure`, the plan must name this hospital with its own key, and all others.

        Raises:
            PlanError: it does not, or its numbers do not fit together.
        """
        if plan.privacy.mode != "secure":
            return
        terms = secure_terms(plan)
        if "" in terms.keys:
            raise PlanError("the plan names sites without their signing keys")
        if terms.key(self._settings.site) != self._sums.public_key:
            raise PlanError(
                "the plan names another signing key for this hospital than the one it holds: the "
                "consortium must sign a new version of the plan"
            )
        if plan.model.family not in BUILT_IN_FAMILIES:
            raise PlanError("only the built-in model families take part in secure sums")

    async def _members(
        self, plan: StudyPlan, policy: Policy, reservation: Reservation
    ) -> Members | None:
        """The patients of the study's cohort whose lifetime budget has room for it.

        How many are left out is known here alone: it goes to the node's own log.

        Returns:
            pseudonyms, or none where nothing is counted by patient: an installed program does not
            say whose records it reads, and mode `none` promises nothing.

        Raises:
            CohortError: too few are left.
            BudgetError: the study is too dear for anybody.
        """
        worker = self._workers.worker(plan)
        await worker.ask({"op": "members", "everybody": True})
        cohort = await worker.ask({"op": "cohort"})
        if not cohort.head["named"] or not reservation.protected:
            self._check_cohort(plan, policy, cohort.head)
            return None
        admission = self._ledger.admit(reservation, policy.limits, unpack(cohort.body))
        if admission.left_out:
            log.info(
                "study %s: %d patients are left out because their lifetime budget is spent",
                plan.study,
                admission.left_out,
            )
        await worker.ask({"op": "members"}, pack(admission.members))
        self._check_cohort(plan, policy, (await worker.ask({"op": "cohort"})).head)
        return admission.members

    def _check_cohort(self, plan: StudyPlan, policy: Policy, sizes: Mapping[str, int]) -> None:
        smallest = policy.smallest_cohort_for(plan)
        patients = sizes["training"] + sizes["held_out"]
        if plan.privacy.mode == "secure" and patients > plan.sites.largest_cohort:
            raise CohortError(
                f"study {plan.study} is made for at most {plan.sites.largest_cohort} patients a "
                "hospital, this one has more (how many stays here): the consortium may raise "
                "sites.largest_cohort in a new version of the plan"
            )
        if sizes["training"] < smallest:
            raise CohortError(
                f"study {plan.study} needs {smallest} patients for training, this hospital has "
                f"{sizes['training']} (this number stays here); 'fedtwin client check' shows why "
                "others were left out"
            )

    async def _price(self, plan: StudyPlan) -> tuple[float, Reservation]:
        """Recompute every privacy number of a plan: its epsilon, and what to reserve.

        Raises:
            PlanError: the plan states less than it costs.
        """
        order = {"op": "price", "orders": list(ORDERS)}
        price = (await self._workers.worker(plan).ask(order)).head["price"]
        cost = price["epsilon"] if plan.privacy.mode != "none" else float("inf")
        return cost, reservation_for(plan, price)

    def _decline(self, study: KnownStudy, reasons: str, announce: Announce) -> None:
        log.warning("study %s is declined: %s", study.study, reasons)
        self._studies.decide(
            study.plan_hash, "declined", tuple(reasons.splitlines()), self._clock()
        )
        announce(study, False)

    async def _end(self, study: KnownStudy) -> None:
        await self._workers.stop(study.plan_hash)
        if study.decision == "ended":
            return
        log.info("study %s has ended (%s)", study.study, study.state)
        self._sums.forget(study.plan_hash)
        self._give_back(study)
        reasons = tuple(study.reasons.splitlines())
        self._studies.decide(study.plan_hash, "ended", reasons, self._clock())

    def _give_back(self, study: KnownStudy) -> None:
        """Close the study's account in the ledger, if it has one that is open."""
        try:
            account = self._ledger.account(study.study)
        except BudgetError:
            return
        if account.open and account.reservation.plan_hash == study.plan_hash:
            self._ledger.close(study.study, self._clock())
            log.info("study %s: what was reserved and not used is given back", study.study)


def reservation_for(plan: StudyPlan, price: Mapping[str, Any]) -> Reservation:
    """What the ledger must set aside for a plan.

    Args:
        plan: the study's plan.
        price: the fields of the accountant's `Price`, with curves at the ledger's orders.
    """
    protected = plan.privacy.mode != "none"
    allotments = tuple(
        Allotment(
            mechanism=Mechanism(
                kind=item["kind"],
                sigma=item["sigma"],
                sampling_rate=item["sampling_rate"],
                steps=item["steps"],
                population=item["population"],
                rdp=tuple(item["rdp"]) if protected else None,
                hospitals=item["hospitals"],
                numbers=item["numbers"],
                sensitivity=item["sensitivity"],
            ),
            charges=item["charges"],
        )
        for item in price["mechanisms"]
    )
    return Reservation(
        study=plan.study,
        plan_hash=plan.hash,
        allotments=allotments,
        epsilon_pld=price["epsilon"] if protected else None,
        delta=plan.privacy.delta,
    )
