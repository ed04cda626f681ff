"""What a secure study's plan needs before it is signed: every site by name, with its own key."""

from fedtwin_protocol.errors import PlanError
from fedtwin_protocol.parameters import BUILT_IN_FAMILIES
from fedtwin_protocol.secure_terms import FEWEST_SITES, secure_terms
from fedtwin_protocol.study import StudyPlan, plan_from_value
from fedtwin_server.store import Store


def with_keys(plan: StudyPlan, store: Store) -> StudyPlan:
    """Name the sites of a secure study with their signing keys, which the signers vouch for.

    An empty list of invited sites becomes everybody who is a member now.

    Raises:
        PlanError: a site has not enrolled, or the sites do not make a secure sum.
    """
    members = [item["name"] for item in store.members("site") if item["revoked"] is None]
    invited = plan.sites.invited or tuple(str(name) for name in members)
    if not plan.sites.invited and len(members) < FEWEST_SITES:
        raise PlanError(
            f"a secure study names its sites, and of this consortium {len(members)} have enrolled: "
            f"enrol at least {FEWEST_SITES} hospitals first, or set privacy.mode to 'local'"
        )
    keys = store.signing_keys()
    unknown = sorted(set(invited) - (keys.keys() & set(members)))
    if unknown:
        raise PlanError(
            f"a secure study needs every site's signing key, and these have not enrolled (or only "
            f"with an older version, which sends it when it renews): {', '.join(unknown)}"
        )
    known = {name: keys[name] for name in sorted(invited)}
    stated = plan.sites.keys
    if stated and stated != known:
        raise PlanError("sites.keys of the plan are not the keys that the sites enrolled with")
    sites = plan.sites.model_copy(update={"invited": tuple(sorted(invited)), "keys": known})
    whole = plan_from_value({**plan.model_dump(mode="json"), "sites": sites.model_dump()}, "plan")
    secure_terms(whole)
    if whole.model.family not in BUILT_IN_FAMILIES:
        raise PlanError(
            f"model family '{whole.model.family}' is not built in, so that sites could not clip "
            "it: set privacy.mode to 'local'"
        )
    return whole
