"""A study as it goes: what each hospital's policy decides, and the rounds as they close."""

import time
from typing import Final

from fedtwin.demo.consortium import LocalConsortium
from fedtwin.paper import console, say
from fedtwin_client.node.home import NodeHome
from fedtwin_client.node.studies import KnownStudies, KnownStudy
from fedtwin_protocol.errors import ConfigurationError
from fedtwin_protocol.study import StudyPlan
from fedtwin_server.coordinator import Home
from fedtwin_server.store import Store
from fedtwin_server.study_record import plan_of

PATIENCE_S: Final = 100.0
LOOK_S: Final = 0.05
_DECIDED: Final = {"accepted", "declined", "held"}


def signed_plan(consortium: LocalConsortium, study: str) -> StudyPlan:
    """A study's plan as it was signed: with its sites and their keys, where it is secure."""
    store = Home(folder=consortium.server).store()
    plan = plan_of(store.study(study))
    store.close()
    return plan


def follow(consortium: LocalConsortium, plan: StudyPlan, sites: tuple[str, ...]) -> tuple[str, ...]:
    """Show decisions and rounds until the study ends; returns the sites that take part.

    Raises:
        ConfigurationError: it does not end well, or too few hospitals take part; says why.
    """
    store = Home(folder=consortium.server).store()
    watched = {site: KnownStudies(NodeHome(folder=consortium.site(site)).studies_file)
               for site in sites}  # fmt: skip
    try:
        with console.status("the hospitals count their cohorts"):
            return _watch(store, watched, consortium, plan)
    finally:
        store.close()
        for studies in watched.values():
            studies.close()


def _watch(
    store: Store, watched: dict[str, KnownStudies], consortium: LocalConsortium, plan: StudyPlan
) -> tuple[str, ...]:
    deadline = time.monotonic() + PATIENCE_S
    decided: dict[str, KnownStudy] = {}
    shown = 0
    while time.monotonic() < deadline:
        _show_decisions(watched, plan, decided)
        shown = _show_rounds(store, plan, shown)
        record = store.study(plan.study)
        if record.status in {"finished", "failed", "stopped"}:
            break
        _refuse_too_few(plan, decided, len(watched))
        time.sleep(LOOK_S)
    _show_decisions(watched, plan, decided)
    _show_rounds(store, plan, shown)
    if record.status != "finished":
        _refuse_too_few(plan, decided, len(watched))
        logs = "\n".join(path.read_text()[-800:] for path in consortium.folder.glob("*.log"))
        why = record.reason or f"it did not end within {PATIENCE_S:g} s"
        raise ConfigurationError(f"the study is {record.status}: {why}\n{logs}")
    declined = {site for site, known in decided.items() if known.decision != "accepted"}
    return tuple(site for site in watched if site not in declined)


def _show_decisions(
    watched: dict[str, KnownStudies], plan: StudyPlan, decided: dict[str, KnownStudy]
) -> None:
    for site, studies in watched.items():
        known = studies.by_hash(plan.hash)
        if site not in decided and known is not None and known.decision in _DECIDED:
            decided[site] = known
            say(f"{site}: {known.decision}, because {known.reasons.replace(chr(10), '; ')}")


def _show_rounds(store: Store, plan: StudyPlan, shown: int) -> int:
    rounds = store.rounds(plan.study)
    for number, one in enumerate(rounds[shown:], start=shown + 1):
        # Nobody's update is in a round whose model the votes threw away.
        who = f"{len(one.sites)} hospitals" if one.sites else "thrown away, the last model stays"
        say(f"round {number} of {plan.training.rounds}: {who}, {one.seconds:.3f} s")
    return len(rounds)


def _refuse_too_few(plan: StudyPlan, decided: dict[str, KnownStudy], sites: int) -> None:
    """End at once when so many hospitals stay away that no round can ever start."""
    away = {site: known for site, known in decided.items() if known.decision == "declined"}
    left = sites - len(away)
    if left < plan.sites.quorum:
        why = "".join(f"\n  {site}: {known.reasons}" for site, known in away.items())
        raise ConfigurationError(
            f"only {left} of {sites} hospitals can take part, and the plan needs "
            f"{plan.sites.quorum}:{why}"
        )
