"""The hospital's own policy: what a study may ask of this site, written by the hospital in a file.

The policy is read strictly: an unknown or repeated key is an error, never ignored. A study is
judged by its signed plan and by the epsilon that the site has recomputed, never by what the plan
says of itself alone.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from fedtwin_client.node.ledger_limits import BudgetLimits
from fedtwin_protocol.contract import Part
from fedtwin_protocol.errors import PolicyError
from fedtwin_protocol.strict_yaml import load_strictly
from fedtwin_protocol.study import StudyPlan

TOLERANCE = 1e-3
"""Relative difference between a stated and a recomputed epsilon that counts as rounding."""


class Patterns(Part):
    """Codes by pattern: `*` any letters, `?` one; `denied` wins.

    Attributes:
        allowed: a code must match one of these.
        denied: and none of these.
    """

    allowed: tuple[str, ...] = ("*",)
    denied: tuple[str, ...] = ()

    def refused(self, codes: Iterable[str]) -> list[str]:
        """The codes that may not be read, each once, in order."""
        return [code for code in dict.fromkeys(codes) if not self._admits(code)]

    def _admits(self, code: str) -> bool:
        if any(fnmatchcase(code, pattern) for pattern in self.denied):
            return False
        return any(fnmatchcase(code, pattern) for pattern in self.allowed)


class Policy(Part):
    """What this hospital allows.

    Attributes:
        consortium: whose studies may run here; none: any this node is enrolled with.
        questions: kinds of question.
        modes: `secure`: only sums over all sites can be seen, with noise that sites share;
            `local`: the site's own noise protects; `none`: no protection.
        codes: what may be read of a record; `age` and `sex` are codes of their own.
        endpoints: codes that may be predicted.
        model_families: families of models.
        reports: what may leave besides training updates.
        epsilon_per_study: largest epsilon of one study.
        epsilon_lifetime: largest epsilon of a patient over all studies.
        delta_largest: largest delta of a study, and of a patient's lifetime.
        smallest_cohort: the site takes part only with so many patients; the stricter of this and
            the plan's counts.
        rounds_largest: most rounds of a study.
        when_allowed: `accept` an allowed study, or `ask` a person.
        consent: `opt_out`: who did not object takes part; `opt_in`: only who permitted.
    """

    consortium: str | None = None
    questions: tuple[Literal["risk", "response", "population", "statistics"], ...] = ("risk",)
    modes: tuple[Literal["secure", "local", "none"], ...] = ("secure", "local")
    codes: Patterns = Patterns()
    endpoints: Patterns = Patterns()
    model_families: tuple[str, ...] = ("logistic_regression", "network")
    reports: tuple[Literal["cohort_count", "evaluation"], ...] = ("cohort_count", "evaluation")
    epsilon_per_study: float = Field(default=3.0, gt=0, le=100)
    epsilon_lifetime: float = Field(default=8.0, gt=0, le=1000)
    delta_largest: float = Field(default=1e-5, gt=0, lt=0.01)
    smallest_cohort: int = Field(default=20, ge=1)
    rounds_largest: int = Field(default=1000, ge=1)
    when_allowed: Literal["accept", "ask"] = "ask"
    consent: Literal["opt_out", "opt_in"] = "opt_out"

    @property
    def limits(self) -> BudgetLimits:
        """The part of the policy that the ledger enforces."""
        return BudgetLimits(
            epsilon_per_study=self.epsilon_per_study,
            epsilon_lifetime=self.epsilon_lifetime,
            delta_lifetime=self.delta_largest,
            unprotected="none" in self.modes,
        )

    def smallest_cohort_for(self, plan: StudyPlan) -> int:
        """The fewest patients with which this site takes part in a study."""
        return max(self.smallest_cohort, plan.sites.smallest_cohort)


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What the policy says to a plan.

    Attributes:
        decision: `refuse`, `ask` a person, or `accept`.
        reasons: sentences with the plan's value and the policy's.
    """

    decision: Literal["accept", "ask", "refuse"]
    reasons: tuple[str, ...]


def judge(
    policy: Policy, plan: StudyPlan, recomputed_epsilon: float, now: datetime | None = None
) -> Verdict:
    """Judge a plan by the hospital's policy.

    Args:
        policy: the hospital's.
        plan: its signatures were verified before.
        recomputed_epsilon: of the whole study for its worst patient at the plan's delta, computed
            at this site from the plan's noise and rounds; infinite without protection.
        now: refuses a plan that has expired; none: not asked.

    Returns:
        `refuse` with every reason there is; else what `when_allowed` says.
    """
    checks: tuple[Callable[[], Iterable[str]], ...] = (
        lambda: _who_and_what(policy, plan),
        lambda: _what_is_read(policy, plan),
        lambda: _what_leaves(policy, plan),
        lambda: _privacy(policy, plan, recomputed_epsilon),
        lambda: _expiry(plan, now),
    )
    reasons = tuple(reason for check in checks for reason in check())
    if reasons:
        return Verdict(decision="refuse", reasons=reasons)
    notes = tuple(_notes(policy, plan))
    if policy.when_allowed == "ask":
        asks = "the policy allows this study and lets a person decide (when_allowed: ask)"
        return Verdict(decision="ask", reasons=(asks, *notes))
    accepts = "the policy allows this study (when_allowed: accept)"
    return Verdict(decision="accept", reasons=(accepts, *notes))


def load_policy(path: Path) -> Policy:
    """Read the hospital's policy.

    Raises:
        PolicyError: the file is missing, not YAML, or a key is unknown, repeated or wrong; the
            sentence names file, key and what was expected.
    """
    try:
        value = load_strictly(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyError(
            f"cannot read the policy {path}: {error.strerror}; no study is admitted without one"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path} is not YAML: {error}") from error
    if not isinstance(value, dict):
        raise PolicyError(f"{path} holds no policy: expected keys such as 'epsilon_per_study'")
    try:
        return Policy.model_validate(value)
    except ValidationError as error:
        raise PolicyError(_explain(error, path)) from error


def default_policy_text() -> str:
    """A policy file with every key, its default and what it means."""
    return _DEFAULT


def _who_and_what(policy: Policy, plan: StudyPlan) -> Iterable[str]:
    if policy.consortium not in {None, plan.consortium}:
        yield (
            f"the plan is of consortium '{plan.consortium}', the policy admits "
            f"'{policy.consortium}' (consortium)"
        )
    if plan.question not in policy.questions:
        yield (
            f"the plan asks a question of kind '{plan.question}', the policy admits "
            f"{_listed(policy.questions)} (questions)"
        )
    if plan.model.family not in policy.model_families:
        yield (
            f"the plan trains a model of family '{plan.model.family}', the policy admits "
            f"{_listed(policy.model_families)} (model_families)"
        )
    if plan.training.rounds > policy.rounds_largest:
        yield (
            f"the plan has {plan.training.rounds} rounds, the policy admits at most "
            f"{policy.rounds_largest} (rounds_largest)"
        )


def _what_is_read(policy: Policy, plan: StudyPlan) -> Iterable[str]:
    for feature in plan.features:
        codes = (*feature.codes, *({feature.kind} & {"age", "sex"}))
        for code in policy.codes.refused(codes):
            yield f"feature '{feature.name}' reads {code}, {_patterns('codes', policy.codes, code)}"
    for word in () if plan.sequence is None else plan.sequence.vocabulary:
        for code in policy.codes.refused((word.code,)):
            yield f"the sequence reads {code}, {_patterns('codes', policy.codes, code)}"
    cohort = plan.cohort
    chosen = (*cohort.index.codes, *cohort.require_codes, *cohort.exclude_codes)
    for code in policy.codes.refused(chosen):
        yield f"the choice of patients reads {code}, {_patterns('codes', policy.codes, code)}"
    for code in policy.endpoints.refused(plan.endpoint.codes):
        yield (
            f"endpoint '{plan.endpoint.name}' reads {code}, "
            f"{_patterns('endpoints', policy.endpoints, code)}"
        )


def _what_leaves(policy: Policy, plan: StudyPlan) -> Iterable[str]:
    if "cohort_count" not in policy.reports:
        yield (
            "the plan has every site report how many patients take part, with noise; the policy "
            f"admits the reports {_listed(policy.reports)} (reports)"
        )
    if plan.privacy.evaluation_noise is not None and "evaluation" not in policy.reports:
        yield (
            "the plan has every site report a noised table of its held-out patients; the policy "
            f"admits the reports {_listed(policy.reports)} (reports)"
        )
    if plan.privacy.vote_noise is not None and "evaluation" not in policy.reports:
        yield (
            "the plan has every site vote, in each round and with noise, whether its held-out "
            "patients are worse off; the policy admits the reports "
            f"{_listed(policy.reports)} (reports), and votes need 'evaluation'"
        )


def _privacy(policy: Policy, plan: StudyPlan, recomputed: float) -> Iterable[str]:
    privacy = plan.privacy
    if privacy.mode not in policy.modes:
        yield (
            f"the plan's privacy mode is '{privacy.mode}', the policy admits "
            f"{_listed(policy.modes)} (modes)"
        )
    if privacy.delta > policy.delta_largest:
        yield (
            f"the plan's delta is {privacy.delta:g}, the policy admits at most "
            f"{policy.delta_largest:g} (delta_largest)"
        )
    if privacy.mode != "none":
        yield from _epsilon(policy, plan, recomputed)


def _epsilon(policy: Policy, plan: StudyPlan, recomputed: float) -> Iterable[str]:
    stated = plan.privacy.epsilon
    if math.isnan(recomputed) or recomputed > stated * (1 + TOLERANCE):
        yield (
            f"the plan states epsilon {stated:g}, but its own noise, rounds and reports make it "
            f"{recomputed:.4g} by this site's calculation"
        )
    largest = max(stated, recomputed)
    if largest > policy.epsilon_per_study:
        yield (
            f"the plan's epsilon is {largest:.4g}, the policy admits at most "
            f"{policy.epsilon_per_study:g} for one study (epsilon_per_study)"
        )


def _expiry(plan: StudyPlan, now: datetime | None) -> Iterable[str]:
    if plan.expires is not None and now is not None and now >= plan.expires:
        yield f"the plan expired at {plan.expires.isoformat()}, and it is {now.isoformat()} now"


def _notes(policy: Policy, plan: StudyPlan) -> Iterable[str]:
    if policy.smallest_cohort > plan.sites.smallest_cohort:
        yield (
            f"the plan is content with {plan.sites.smallest_cohort} patients, this site takes part "
            f"only with {policy.smallest_cohort} or more (smallest_cohort)"
        )
    if plan.privacy.mode == "none":
        yield (
            "the plan's privacy mode is 'none': what leaves is not protected by noise, and the "
            "policy admits that (modes)"
        )


def _patterns(key: str, patterns: Patterns, code: str) -> str:
    denied = [pattern for pattern in patterns.denied if fnmatchcase(code, pattern)]
    if denied:
        return f"the policy denies {_listed(denied)} ({key}.denied)"
    return f"the policy admits {_listed(patterns.allowed)} ({key}.allowed)"


def _listed(values: Iterable[str]) -> str:
    return ", ".join(f"'{value}'" for value in values) or "nothing"


def _explain(error: ValidationError, path: Path) -> str:
    return f"the policy {path} is wrong:\n" + "\n".join(
        f"  {_place(item['loc'])}: {_complaint(item)}" for item in error.errors(include_url=False)
    )


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location) or "the file as a whole"


def _complaint(item: Any) -> str:
    if item["type"] != "extra_forbidden":
        return f"{str(item['msg']).removeprefix('Value error, ')}, found {item['input']!r}"
    keys = Patterns.model_fields if len(item["loc"]) > 1 else Policy.model_fields
    return f"unknown key; expected one of {', '.join(keys)}"


_DEFAULT = """\
# What studies may ask of this hospital. Read at every decision; a key that is misspelt is an error.
# Codes are written VOCABULARY//code; in patterns * stands for any letters and ? for one.

# Whose studies may run here. Empty: any consortium this node is enrolled with.
consortium:

# Kinds of question: risk, response, population, statistics.
questions: [risk]

# secure: only sums over all hospitals can be seen by anybody, with noise that they add together.
# local: this hospital's own noise protects every patient against everybody outside it.
# none: no protection; only for data that may be given away.
modes: [secure, local]

# What may be read of a record; 'age' and 'sex' are codes of their own. 'denied' wins.
codes:
  allowed: ["*"]
  denied: []

# What may be predicted.
endpoints:
  allowed: ["*"]
  denied: []

# Families of models that may be trained.
model_families: [logistic_regression, network]

# What may leave besides training updates: cohort_count (how many patients, noised),
# evaluation (a noised table of predicted risk and outcome of held-out patients).
reports: [cohort_count, evaluation]

# Privacy loss of one patient: in one study, and over all studies together.
# By a factor of e^epsilon, at most, can anybody's odds change that a patient's record was used.
epsilon_per_study: 3
epsilon_lifetime: 8

# Chance, at most, that the statement above does not hold; well below 1 / number of patients.
delta_largest: 1.0e-5

# This hospital takes part only with so many patients; the stricter of this and the plan's counts.
smallest_cohort: 20

# Most rounds of training of one study.
rounds_largest: 1000

# accept: an allowed study starts by itself. ask: a person accepts it first.
when_allowed: ask

# Who takes part, asked before every round. opt_out: everybody but who objected or withdrew.
# opt_in: only who permitted research by a FHIR Consent. An objection always wins.
consent: opt_out
"""
