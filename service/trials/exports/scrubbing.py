"""What of a result may leave in an archive: numbers, codes and versions; no UID, no date, no words of a person."""

from collections.abc import Mapping
from typing import Any

#: Of result.json; everything that is not named here stays at home.
_KEPT = ("schema", "use", "status", "motion", "discs", "versions")
_KEPT_OF_INPUTS = ("protocol", "t1rho_times_ms", "t2_times_ms")
#: Versions that quote a UID, or a person.
_DROPPED_VERSIONS = ("correction", "lowest_disc")


def told_versions(versions: Mapping[str, Any]) -> dict[str, str]:
    """What made a result, without what quotes a UID or a person, by name."""
    return {name: str(versions[name]) for name in sorted(versions) if name not in _DROPPED_VERSIONS}


def scrubbed_result(result: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a result.json without series and object UIDs, times of day, details in words and editors."""
    kept = {name: result[name] for name in _KEPT if name in result}
    kept["reasons"] = [{"code": one["code"]} for one in result.get("reasons", ())]
    kept["inputs"] = [{name: one[name] for name in _KEPT_OF_INPUTS if name in one} for one in result.get("inputs", ())]
    acquisition = dict(result.get("acquisition") or {})
    acquisition.pop("acquired_at", None)
    kept["acquisition"] = acquisition
    if result.get("correction"):
        kept["correction"] = {"automatic_dice": result["correction"].get("automatic_dice", {})}
    kept["versions"] = told_versions(result.get("versions", {}))
    return kept
