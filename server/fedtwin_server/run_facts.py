"""What a release's card may say of a run: counts and tables with their noise, rounds, sites."""

from datetime import datetime
from importlib.metadata import version

import numpy as np

from fedtwin_protocol.card_writing import ALL_SITES, RunFacts
from fedtwin_protocol.secure_terms import secure_terms
from fedtwin_protocol.study import StudyPlan
from fedtwin_protocol.v1 import exchange_pb2 as pb
from fedtwin_server.admission import check_count, check_table
from fedtwin_server.candidates import CandidateBook
from fedtwin_server.store import Store


def run_facts(store: Store, plan: StudyPlan, now: datetime) -> RunFacts:
    """What the card may say of a run: noised counts, rounds, noised tables."""
    if plan.privacy.mode == "secure":
        return secure_facts(store, plan, now)
    counts = {
        site: check_count(pb.Answer.FromString(data).content)
        for _, site, _, data in store.answers(plan.study, "query.cohort")
    }
    tables = {
        site: np.array(check_table(pb.Answer.FromString(data).content, plan)).reshape(-1, 2)
        for _, site, _, data in store.answers(plan.study, "evaluate")
    }
    rounds = store.rounds(plan.study)
    used = {site: sum(site in record.sites for record in rounds) for site in counts}
    return RunFacts(
        patients=counts,
        rounds_used=used,
        rounds=len(rounds),
        created=now,
        tables=tables,
        software={"fedtwin": version("fedtwin")},
        gone_wrong=CandidateBook(store.connection).thrown_away(plan.hash),
    )


def secure_facts(store: Store, plan: StudyPlan, now: datetime) -> RunFacts:
    """The same of a run in mode `secure`: what is known is known of all sites together."""
    rounds = store.rounds(plan.study)
    counted = store.total(plan.study, "query.cohort")
    table = store.total(plan.study, "evaluate")
    return RunFacts(
        patients={},
        rounds_used={
            site: sum(site in record.sites for record in rounds)
            for site in secure_terms(plan).sites
        },
        rounds=len(rounds),
        created=now,
        tables={} if table is None else {ALL_SITES: np.array(table[0]).reshape(-1, 2)},
        tables_of=0 if table is None else len(table[1]),
        all_patients=None if counted is None else counted[0][0],
        software={"fedtwin": version("fedtwin")},
        gone_wrong=CandidateBook(store.connection).thrown_away(plan.hash),
    )
