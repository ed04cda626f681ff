"""What a node remembers of the studies it was offered."""

from datetime import UTC, datetime
from pathlib import Path

from fedtwin.demo.synthetic import PLAN
from fedtwin_client.node.studies import KnownStudies, KnownStudy
from fedtwin_protocol.signing import PLAN_TYPE, sign
from fedtwin_protocol.study import StudyPlan, plan_from_yaml

NOW = datetime(2026, 11, 20, tzinfo=UTC)


def hear(studies: KnownStudies, plan: StudyPlan, state: str = "open") -> KnownStudy:
    return studies.hear(plan, sign(PLAN_TYPE, plan.to_bytes(), []).to_bytes(), state, NOW)


def test_a_newer_version_replaces_those_that_were_live(tmp_path: Path) -> None:
    studies = KnownStudies(tmp_path / "node.sqlite")
    first = plan_from_yaml(PLAN)
    versions = [first.model_copy(update={"version": number}) for number in (1, 2, 3)]
    other = first.model_copy(update={"study": "another-study"})
    hear(studies, versions[0], "released")
    for plan in (versions[1], other):
        hear(studies, plan)
    assert studies.replaced_by(versions[1]) == []
    replaced = studies.replaced_by(versions[2])
    assert [study.version for study in replaced] == [2]
    states = {(study.study, study.version): study.state for study in studies.all()}
    assert states == {
        (first.study, 1): "released",
        (first.study, 2): "replaced",
        ("another-study", 1): "open",
    }
    studies.close()
