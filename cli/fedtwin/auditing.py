"""Audits on the command line: from findings to a table, a file for the card, and a page."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fedtwin.paper import show_table
from fedtwin_protocol.card_audits import Audit, AuditFile, audit_file, audits_from_bytes
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.study import StudyPlan

if TYPE_CHECKING:
    from fedtwin_client.node.home import NodeHome
    from fedtwin_research.audits.repeat import Repeated
    from fedtwin_twins.audits.finding import Finding

NEAR = 0.05
"""Figures of the same seed may differ by so much of their value between machines."""


def as_audits(
    findings: Iterable["Finding"],
    by: Literal["site software", "outside"],
    performed: datetime,
    seed: int,
) -> tuple[Audit, ...]:
    """Findings as they stand in a card, with six digits."""
    return tuple(
        Audit(
            name=one.name,
            asks=one.asks,
            result=float(f"{one.result:.6g}"),
            threshold=float(f"{one.threshold:.6g}"),
            passed=one.passed,
            reading=one.reading,
            by=by,
            performed=performed,
            software=f"fedtwin {version('fedtwin')}",
            seed=seed,
        )
        for one in findings
    )


def show_audits(title: str, audits: Sequence[Audit]) -> bool:
    """Print a table; whether all passed."""
    rows = [
        [
            "ok" if one.passed else "FAIL",
            one.name,
            f"{one.result:.3g}",
            f"{one.threshold:.3g}",
            one.reading,
        ]
        for one in audits
    ]
    show_table(title, ["", "audit", "result", "threshold", "what was found"], rows)
    return all(one.passed for one in audits)


def write_file(path: Path, data: bytes) -> None:
    """Write a result for people.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigurationError(f"cannot write {path}: {error.strerror}") from error


def read_audits(paths: Iterable[Path]) -> list[AuditFile]:
    """Files of audits.

    Raises:
        ConfigurationError: a file cannot be read.
        ReleaseError: a file holds no audits.
    """
    found = []
    for path in paths:
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"cannot read the audits {path}: {error.strerror}") from error
        found.append(audits_from_bytes(data, str(path)))
    return found


def repeat(plan: StudyPlan, seed: int) -> "Repeated":
    """Repeat what can be repeated of a plan's audits, with progress."""
    from fedtwin.paper import console
    from fedtwin.plan_check import cost_of
    from fedtwin_research.audits.repeat import repeat_audits

    def cost(of: StudyPlan) -> float:
        found = cost_of(of)
        return max(found.training, found.held_out)

    with console.status("auditing") as status:
        return repeat_audits(plan, seed, cost, status.update)


def check_mechanism(
    place: "NodeHome", study: str | None, plan: Path | None, seed: int, json_file: Path | None
) -> bool:
    """The moment and independence tests of what a node would send; whether all passed.

    Raises:
        ConfigurationError: no study and no plan is named, or both; or no such study was offered.
        PlanError: the model family is not built in.
    """
    from fedtwin.paper import console, now, say
    from fedtwin_client.node.studies import KnownStudies
    from fedtwin_client.training.self_check import check_privacy
    from fedtwin_protocol.study import plan_from_yaml

    if (study is None) == (plan is None):
        raise ConfigurationError(
            "say which mechanism to check: --study NAME of an offered study, or --plan plan.yaml"
        )
    if plan is not None:
        found = plan_from_yaml(plan)
    else:
        place.settings()
        found = KnownStudies(place.studies_file).by_name(str(study)).plan
    with console.status("asking for made-up releases"):
        findings = check_privacy(found, seed)
    audits = as_audits(findings, "site software", now(), seed)
    passed = show_audits(f"{found.study} version {found.version}, on made-up patients", audits)
    if found.privacy.mode == "none":
        say("mode 'none' promises nothing: only the independence of patients was checked")
    if json_file is not None:
        write_file(json_file, audit_file(found, audits).to_bytes())
    return passed


def unlike_the_card(shown: Sequence[Audit], repeated: Sequence[Audit], seed: int) -> list[str]:
    """Sentences about figures in a card that the same seed does not give again."""
    again = {one.name: one for one in repeated}
    return [
        f"the card says {one.result:g} of '{one.name}', repeated with seed {seed} it is "
        f"{again[one.name].result:g}"
        for one in shown
        if one.by == "outside"
        and one.seed == seed
        and one.name in again
        and abs(one.result - again[one.name].result) > NEAR * max(abs(one.result), 0.02)
    ]


def stated_epsilon(plan: StudyPlan) -> float:
    """What the plan promises; infinite where it promises nothing."""
    return plan.privacy.epsilon if plan.privacy.mode != "none" else inf
