"""A profile of precision as changes are judged with it, from the file that a person reads."""

from pathlib import Path

from config.precision_profiles import PrecisionEntry, Profile, load_profile
from processing.change_limits import log_sd_of_cv
from processing.results import Level, Quantity, Region
from processing.visits import Precision, PrecisionProfile


def read_precision(name: str, folder: Path | None = None) -> PrecisionProfile:
    """The profile that a trial's plan names (``change.precision``).

    Args:
        name: of a shipped profile, or the path of a site's own file.
        folder: where a relative path begins.

    Raises:
        SettingsError: no such profile, or one that cannot be used.
    """
    return precision_profile(load_profile(name, folder))


def precision_profile(profile: Profile) -> PrecisionProfile:
    """The entries of a profile, one for each quantity, region and level; coefficients of variation as log-scale SDs."""
    entries = [
        _precision(one, Quantity(one.quantity), Region(region), None if level is None else Level[level])
        for one in profile.entries
        for region in one.regions
        for level in one.levels or (None,)
    ]
    return PrecisionProfile(profile.name, profile.description, tuple(entries), profile.measured_on)


def _precision(one: PrecisionEntry, quantity: Quantity, region: Region, level: Level | None) -> Precision:
    return Precision(
        quantity=quantity,
        region=region,
        within_sd_log=log_sd_of_cv(one.within_cv),
        within_sd_ms=one.within_sd_ms,
        between_sd_log=None if one.between_cv is None else log_sd_of_cv(one.between_cv),
        n_pairs=one.n_pairs,
        source=one.source,
        borrowed=one.borrowed,
        level=level,
    )
