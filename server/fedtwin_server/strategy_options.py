"""What a plan may say of a Flower strategy; Flower itself is not needed to judge it.

The plan fixes who takes part, what travels and what is evaluated, so options that would say
otherwise are refused, and so are strategies whose replies could not be checked. A wrapper
(`DifferentialPrivacy…`) names the strategy inside it as the option `strategy`, and that one's
options as `strategy.NAME`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.study import StudyPlan

WEIGHT: Final = "num-examples"
WRAPPER: Final = "DifferentialPrivacy"
INNER: Final = "strategy"
Options = dict[str, float | int | bool | str]

_QUORUM: Final = "sites.quorum says how many sites a round needs"
_EVALUATION: Final = "evaluation is bought once, with privacy.evaluation_noise"
_RECORDS: Final = "the names of records are the same in every study"
_CODE: Final = "it is code, and a plan carries none"
FIXED: Final[Mapping[str, tuple[object, str]]] = {
    "weighted_by_key": (WEIGHT, "updates count by the cohort count that each site reported"),
    "arrayrecord_key": ("arrays", _RECORDS),
    "configrecord_key": ("config", _RECORDS),
    "fraction_evaluate": (0, _EVALUATION),
    "min_evaluate_nodes": (0, _EVALUATION),
    "train_metrics_aggr_fn": (None, _CODE),
    "evaluate_metrics_aggr_fn": (None, _CODE),
    "selection_rule": (None, _CODE),
    "accountant": (None, _CODE),
}
AT_MOST_QUORUM: Final[Mapping[str, str]] = {
    "min_train_nodes": _QUORUM,
    "min_available_nodes": _QUORUM,
    "num_sampled_clients": "a round may close with the quorum's answers, and less noise than "
    "promised would be added to them",
}
REFUSED: Final[Mapping[str, str]] = {
    "FedXgbBagging": "its arrays change their length from round to round and cannot be checked",
    "FedXgbCyclic": "its arrays change their length from round to round and cannot be checked",
}
_SITES_CLIP: Final = (
    "it trusts each site to clip by Flower's own mod, which the built-in families do not use: they "
    "clip each patient's contribution already"
)
ONLY_INSTALLED: Final[Mapping[str, str]] = {
    "DifferentialPrivacyClientSideFixedClipping": _SITES_CLIP,
    "DifferentialPrivacyClientSideAdaptiveClipping": _SITES_CLIP,
    "QFedAvg": "it needs the training loss of each site, which the built-in families do not report "
    "because a plan has no price for it",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class StrategyWish:
    """A strategy as a plan wants it.

    Attributes:
        name: its class.
        options: its keyword arguments.
        inner: the strategy that a wrapper wraps.
    """

    name: str
    options: Options
    inner: "StrategyWish | None" = None

    @property
    def metrics(self) -> tuple[str, ...]:
        """Numbers of a site's reply that it reads beside the arrays."""
        own: tuple[str, ...] = ()
        if self.name == "QFedAvg":
            own = (str(self.options.get("train_loss_key", "train_loss")),)
        elif self.name == "DifferentialPrivacyClientSideAdaptiveClipping":
            own = ("norm_bit",)
        return own + (self.inner.metrics if self.inner else ())


def read_wish(plan: StudyPlan) -> StrategyWish:
    """What a plan says of its strategy, checked.

    Raises:
        PlanError: a strategy or an option that cannot be had here; the sentence says why.
    """
    name, options = plan.aggregation.strategy, dict(plan.aggregation.options)
    if not name.startswith(WRAPPER):
        return _checked(plan, StrategyWish(name=name, options=options))
    inner_name = str(options.pop(INNER, "FedAvg"))
    if inner_name.startswith(WRAPPER):
        raise PlanError(f"{name} wraps a strategy, and {inner_name} is another wrapper")
    prefix = f"{INNER}."
    inner_options = {
        key.removeprefix(prefix): options.pop(key)
        for key in list(options)
        if key.startswith(prefix)
    }
    inner = _checked(plan, StrategyWish(name=inner_name, options=inner_options))
    return _checked(plan, StrategyWish(name=name, options=options, inner=inner))


def _checked(plan: StudyPlan, wish: StrategyWish) -> StrategyWish:
    if wish.name in REFUSED:
        raise PlanError(f"Flower's {wish.name} cannot be used: {REFUSED[wish.name]}")
    if wish.name in ONLY_INSTALLED and plan.model.initial_sha256 is None:
        raise PlanError(
            f"Flower's {wish.name} cannot be used with the built-in model family "
            f"'{plan.model.family}': {ONLY_INSTALLED[wish.name]}"
        )
    for option, value in wish.options.items():
        wanted, reason = FIXED.get(option, (value, ""))
        if value != wanted:
            raise PlanError(f"{wish.name}: option '{option}' cannot be set: {reason}")
        reason = AT_MOST_QUORUM.get(option, "")
        if reason and not (isinstance(value, int) and value <= plan.sites.quorum):
            raise PlanError(
                f"{wish.name}: option '{option}' is {value}, expected at most the quorum, "
                f"{plan.sites.quorum}: {reason}"
            )
    return wish
