"""Who a subject is to those outside: what the plan says, and nothing of the hospital."""

import re

from config.settings import SettingsError
from config.trial_plans import TrialPlan
from dicom_io.pseudonyms import TrialIdentity
from service.trials.windows import UNSCHEDULED


def identity_in(plan: TrialPlan, subject_id: str, visit: str, site_id: str = "") -> TrialIdentity:
    """The identity of a subject at a visit, as the plan allows it.

    Raises:
        SettingsError: subject, visit or site is not one of the plan's; the message says what is allowed.
    """
    if not re.fullmatch(plan.subject_pattern, subject_id) or not re.fullmatch(r"[^\\^=\x00-\x1f]{1,64}", subject_id):
        raise SettingsError(f"subject: {subject_id!r} has not the form {plan.subject_pattern}")
    names = [one.name for one in plan.visits]
    if visit not in (*names, UNSCHEDULED):
        raise SettingsError(f"visit: no visit {visit!r}; allowed: {', '.join(names)}, {UNSCHEDULED}")
    sites = {one.id: one for one in plan.sites}
    if not site_id and len(sites) == 1:
        site_id = next(iter(sites))
    if site_id not in sites:
        raise SettingsError(f"site: no site {site_id!r}; allowed: {', '.join(sites)}")
    return TrialIdentity(
        protocol_id=plan.protocol_id,
        protocol_name=plan.name,
        sponsor=plan.sponsor,
        coordinating_center=plan.coordinating_center,
        site_id=site_id,
        site_name="",  # a name of a hospital; its ID is enough
        subject_id=subject_id,
        time_point_id=visit,
    )
