"""Readiness of a study at this hospital: made, kept, looked at, overruled, and shared."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from os import urandom
from pathlib import Path
from typing import Any, Final

from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.ledger import Ledger
from fedtwin_client.node.ledger_account import Allotment, Mechanism, Reservation
from fedtwin_client.node.policy import Policy, load_policy
from fedtwin_client.node.renyi import ORDERS
from fedtwin_client.node.studies import KnownStudies
from fedtwin_client.patients import absent_from
from fedtwin_client.readiness.counts import Report
from fedtwin_client.readiness.gates import Block, Finding, Verdict, Word, blocked, judge
from fedtwin_client.readiness.kept import Kept
from fedtwin_client.readiness.thresholds import FILE, Thresholds, load_thresholds
from fedtwin_protocol.canonical import canonical_bytes, sha256_hex
from fedtwin_protocol.credentials import write_atomically
from fedtwin_protocol.errors import BudgetError, CohortError, ConfigurationError
from fedtwin_protocol.privacy import gaussian_epsilon, gaussian_mu
from fedtwin_protocol.study import StudyPlan, plan_from_bytes, plan_from_yaml

OF: Final = "readiness-of-"
"""A sharing's name in the ledger starts so, and goes on with the study's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A report as it looks with today's thresholds.

    Attributes:
        plan: the study.
        report: the last one.
        thresholds: the hospital's.
        findings: of every gate.
        blocks: features that count as missing.
        words: what persons said, by feature.
    """

    plan: StudyPlan
    report: Report
    thresholds: Thresholds
    findings: Sequence[Finding]
    blocks: tuple[Block, ...]
    words: dict[str, Word]


def find_plan(home: NodeHome, study: str) -> StudyPlan:
    """A study that was offered, by its name, or a plan in a file.

    Raises:
        ConfigurationError: there is no node here, or no such study was offered.
        PlanError: the file holds no plan.
    """
    home.settings()
    path = Path(study)
    if path.suffix in {".yaml", ".yml"}:
        return plan_from_yaml(path)
    if path.suffix == ".json":
        try:
            return plan_from_bytes(path.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"cannot read the plan {path}: {error.strerror}") from error
    studies = KnownStudies(home.studies_file)
    try:
        return studies.by_name(study).plan
    finally:
        studies.close()


def keep(home: NodeHome, report: Report) -> None:
    """Keep a report as the last one; blocked features follow from it from now on."""
    with Kept(home.folder) as kept:
        kept.keep(report)


def look(home: NodeHome, plan: StudyPlan) -> Look | None:
    """The last report about a plan; none was made.

    Raises:
        ConfigurationError: the thresholds or the reports cannot be read.
    """
    thresholds = load_thresholds(home.folder / FILE)
    with Kept(home.folder) as kept:
        report, words = kept.last(plan.hash), kept.words(plan.hash)
    if report is None:
        return None
    return Look(
        plan=plan,
        report=report,
        thresholds=thresholds,
        findings=judge(report, thresholds),
        blocks=blocked(report, thresholds, words),
        words=words,
    )


def speak(
    home: NodeHome, plan: StudyPlan, feature: str, verdict: Verdict, because: str, by: str,
    now: datetime,
) -> str:  # fmt: skip
    """Write down what a person says of a feature; it goes before the gates.

    Raises:
        ConfigurationError: there is no such feature, or no reason or name.
    """
    names = [one.name for one in plan.features]
    if feature not in names:
        raise ConfigurationError(
            f"study {plan.study} has no feature '{feature}'; it has {', '.join(names)}"
        )
    if not because.strip() or not by.strip():
        raise ConfigurationError(
            "say why with --because and who you are with --by; both are written down"
        )
    word = Word(verdict, because.strip(), by.strip(), now.astimezone(UTC).isoformat())
    with Kept(home.folder) as kept:
        kept.say(plan.hash, feature, word)
    said = {
        "allow": "is used whatever the gates say",
        "block": "counts as missing for everybody here",
        "judge": "is left to the gates again",
    }
    return f"feature '{feature}' of {plan.study} {said[verdict]}, by {word.by}: {word.because}"


def share(
    home: NodeHome, plan: StudyPlan, epsilon: float, now: datetime, path: Path
) -> tuple[float, int]:
    """Charge the ledger for a noised version of the report, and then write it to a file.

    The charge is on disk before noise is drawn. If writing fails, it stays.

    Args:
        home: the node's folder.
        plan: the study.
        epsilon: what each patient pays, at the policy's delta.
        now: the time.
        path: the file; it must not exist, so that nothing that was shared is lost.

    Returns:
        the epsilon charged, and the ledger's entry.

    Raises:
        BudgetError: the ledger has no room for it.
        CohortError: the cohort cannot be built or is too small.
        ConfigurationError: the file exists or cannot be written, or epsilon is no positive number.
    """
    from fedtwin_client.readiness.shared import contributions, sharable  # noqa: PLC0415 - DuckDB
    from fedtwin_client.store.timeline import Timeline  # noqa: PLC0415 - DuckDB
    from fedtwin_client.training.noise import CryptographicNoise  # noqa: PLC0415 - with the above

    if not (isfinite(epsilon) and epsilon > 0):
        raise ConfigurationError(f"expected an epsilon above 0, got {epsilon}")
    if path.exists():
        raise ConfigurationError(f"{path} exists: name another file for what is to be shared")
    if not path.parent.is_dir():
        raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}")
    policy = load_policy(home.policy_file)
    thresholds = load_thresholds(home.folder / FILE)
    made = contributions(Timeline.open(home.records), plan, now)
    everybody = made.subject_ids.tolist()
    out = absent_from(home, frozenset(everybody), now)
    asked, sigma = _reservation(plan, epsilon, policy, now)
    with Ledger(home.ledger_file) as ledger:
        present = [patient for patient in everybody if patient not in out]
        _close_cut_off(ledger, asked.study, now)
        members = ledger.admit(asked, policy.limits, present).members
        _refuse_few(plan, policy, len(members))
        ledger.reserve(asked, policy.limits, now, members)
        try:
            charge = ledger.charge(asked.study, asked.plan_hash, "readiness", now)
        finally:
            ledger.close(asked.study, now)
    price = (sigma, asked.epsilon_pld or 0.0, asked.delta)
    noise = CryptographicNoise(urandom(32))
    value = sharable(made.of(list(members)), plan, now, price, noise, thresholds.smallest_shown)
    write_atomically(path, canonical_bytes(value))
    return price[1], charge.sequence


def _close_cut_off(ledger: Ledger, study: str, now: datetime) -> None:
    """Close the account of an earlier sharing that was cut off before it closed it."""
    with suppress(BudgetError):
        if ledger.account(study).open:
            ledger.close(study, now)


def _refuse_few(plan: StudyPlan, policy: Policy, patients: int) -> None:
    smallest = policy.smallest_cohort_for(plan)
    if patients < smallest:
        raise CohortError(
            f"a report on study {plan.study} is shared of {smallest} patients or more, and here "
            f"are {patients} whose budget has room for it (this number stays here)"
        )


def _reservation(
    plan: StudyPlan, epsilon: float, policy: Policy, now: datetime
) -> tuple[Reservation, float]:
    """What the ledger must set aside for one sharing, and the noise's sd for a change of 1.

    A patient seen at several hospitals, who all share, moves all their tables: the noise is so many
    times as large.
    """
    delta, hospitals = policy.delta_largest, plan.privacy.hospitals_per_patient
    if epsilon > policy.epsilon_per_study:
        raise BudgetError(
            f"epsilon {epsilon:g} is more than the hospital's policy allows for one release "
            f"(epsilon_per_study {policy.epsilon_per_study:g}): ask for less"
        )
    mu = gaussian_mu(epsilon, delta)
    sigma = 1 / mu
    mechanism = Mechanism(
        kind="readiness",
        sigma=sigma,
        sampling_rate=1.0,
        steps=1,
        population="everyone",
        rdp=tuple(order / (2 * sigma**2) for order in ORDERS),
        hospitals=hospitals,
    )
    about: dict[str, Any] = {"readiness of": plan.hash, "at": now.astimezone(UTC).isoformat()}
    asked = Reservation(
        study=f"{OF}{plan.study}",
        plan_hash=sha256_hex(canonical_bytes(about)),
        allotments=(Allotment(mechanism=mechanism, charges=1),),
        epsilon_pld=gaussian_epsilon(mu, delta),
        delta=delta,
    )
    return asked, sigma * hospitals
