"""A report in the shape of OHDSI's DataQualityDashboard, so that sites of OMOP recognise it.

Fields are those of its results file (github.com/OHDSI/DataQualityDashboard, R/recordResult.R and
R/summarizeResults.R, in the camel case of version 2): one check result for each gate of a feature
that counts rows or patients. Values are ours: the checks ran on timelines, not on a CDM database,
and `queryText` says so.
"""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, NamedTuple

from fedtwin_client.readiness.counts import FeatureCounts, Report
from fedtwin_client.readiness.gates import WHOLE_STUDY, Finding


class _Check(NamedTuple):
    """How the dashboard files a gate (Kahn's terms)."""

    name: str
    category: str
    subcategory: str
    field: str


_CHECKS: Final = {
    "unknown_unit": _Check("plausibleUnitConceptIds", "Plausibility", "Atemporal", "UNIT"),
    "implausible": _Check("plausibleValue", "Plausibility", "Atemporal", "VALUE_AS_NUMBER"),
    "coverage": _Check("measurePersonCompleteness", "Completeness", "", "PERSON_ID"),
    "unmapped": _Check("standardConceptRecordCompleteness", "Completeness", "", "CONCEPT_ID"),
    "null": _Check("measureValueCompleteness", "Completeness", "", "VALUE_AS_NUMBER"),
    "future": _Check("plausibleTemporalAfter", "Plausibility", "Temporal", "DATETIME"),
    "before_birth": _Check("plausibleAfterBirth", "Plausibility", "Temporal", "DATETIME"),
    "after_death": _Check("plausibleBeforeDeath", "Plausibility", "Temporal", "DATETIME"),
}
_QUERY: Final = "counted on the node's timelines, not on a CDM database"


def dqd_values(report: Report, findings: Sequence[Finding]) -> dict[str, Any]:
    """Plain JSON values of a results file.

    Args:
        report: the counts.
        findings: what the gates say of them; measures without a gate have threshold 0 and are shown
            as passed, because the hospital does not judge them.
    """
    results = [_judged(one) for one in findings if one.gate in _CHECKS]
    results += [one for feature in report.features for one in _unjudged(feature)]
    stamp = f"{report.made:%Y-%m-%d %H:%M:%S}"
    return {
        "startTimestamp": stamp,
        "endTimestamp": stamp,
        "executionTime": "0 secs",
        "CheckResults": results,
        "Metadata": [
            {
                "cdmSourceName": f"fedtwin readiness of {report.study}",
                "cdmSourceAbbreviation": report.study,
                "cdmVersion": "none: MEDS timelines",
                "cdmReleaseDate": f"{report.made:%Y-%m-%d}",
                "dqdVersion": f"written by fedtwin {version('fedtwin')}",
            }
        ],
        "Overview": _overview(results),
    }


def _judged(finding: Finding) -> dict[str, Any]:
    judged = finding.colour != "not judged"
    return _result(
        finding.gate,
        finding.feature,
        (finding.failing or 0, finding.of or 0),
        failed=finding.colour == "red",
        threshold=finding.limit,
        reason="" if judged else finding.text,
    )


def _unjudged(feature: FeatureCounts) -> list[dict[str, Any]]:
    if feature.kind in {"age", "sex"}:
        return []
    counts = {
        "null": feature.null,
        "future": feature.future,
        "before_birth": feature.before_birth,
        "after_death": feature.after_death,
    }
    return [
        _result(
            gate,
            feature.name,
            (count, feature.rows),
            failed=False,
            threshold=None,
            reason="" if feature.rows else "there is no row",
        )
        for gate, count in counts.items()
    ]


def _result(
    gate: str,
    feature: str,
    counts: tuple[int, int],
    *,
    failed: bool,
    threshold: float | None,
    reason: str,
) -> dict[str, Any]:
    check, (violated, of) = _CHECKS[gate], counts
    about = feature or "all events"
    return {
        "numViolatedRows": violated,
        "pctViolatedRows": violated / of if of else 0.0,
        "numDenominatorRows": of,
        "executionTime": "0 secs",
        "queryText": _QUERY,
        "checkName": check.name,
        "checkLevel": "TABLE" if feature == WHOLE_STUDY else "CONCEPT",
        "checkDescription": f"{about}: {gate.replace('_', ' ')}",
        "cdmTableName": "TIMELINE",
        "cdmFieldName": check.field,
        "conceptId": feature or None,
        "unitConceptId": None,
        "sqlFile": None,
        "category": check.category,
        "subcategory": check.subcategory or None,
        "context": "Verification",
        "warning": None,
        "error": None,
        "checkId": f"fedtwin_{check.name.lower()}_{feature or 'timeline'}",
        "failed": int(failed),
        "passed": int(not failed and not reason),
        "isError": 0,
        "notApplicable": int(bool(reason)),
        "notApplicableReason": reason or None,
        "thresholdValue": threshold or 0,
        "notesValue": None,
    }


def _overview(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    judged = [one for one in results if not one["notApplicable"]]
    failed = sum(one["failed"] for one in judged)
    passed = len(judged) - failed
    counts: dict[str, Any] = {
        "countTotal": len(results),
        "countPassed": passed,
        "countErrorFailed": 0,
        "countThresholdFailed": failed,
        "countOverallFailed": failed,
        "percentPassed": round(100 * passed / len(judged), 2) if judged else 0.0,
        "percentFailed": round(100 * failed / len(judged), 2) if judged else 0.0,
    }
    for category in ("Plausibility", "Conformance", "Completeness"):
        mine = [one for one in judged if one["category"] == category]
        counts[f"countTotal{category}"] = len(mine)
        counts[f"countFailed{category}"] = sum(one["failed"] for one in mine)
        counts[f"countPassed{category}"] = sum(one["passed"] for one in mine)
    return counts
