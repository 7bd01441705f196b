"""The protocols that are simulated: which images a slice has, and how finely they are sampled."""

import math
from collections.abc import Sequence
from typing import Literal

from processing.results import Quantity

Protocol = Literal["mapss", "t1rho-fse"]

#: What each image of a slice measures: time in ms and the decay it belongs to (None: shared by both).
PREPARATIONS: dict[str, tuple[tuple[float, Quantity | None], ...]] = {
    "mapss": (
        (0.0, None),
        (10.0, Quantity.T1RHO),
        (12.8, Quantity.T2),
        (25.7, Quantity.T2),
        (40.0, Quantity.T1RHO),
        (51.4, Quantity.T2),
        (80.0, Quantity.T1RHO),
    ),
    "t1rho-fse": tuple((time_ms, Quantity.T1RHO) for time_ms in (0.0, 40.0, 80.0, 120.0)),
}

#: Samples taken along rows (frequency encoding) and columns (phase encoding).
ACQUIRED = {"mapss": (256, 128), "t1rho-fse": (256, 192)}


def preparations_of(
    protocol: Protocol, spin_lock_ms: Sequence[float] | None
) -> tuple[tuple[float, Quantity | None], ...]:
    """What each image of a slice measures, with the spin-lock times of one's choice.

    Args:
        protocol: ``mapss`` or ``t1rho-fse``.
        spin_lock_ms: the times after 0; None: the protocol's own.

    Raises:
        ValueError: not as many times above 0 as the protocol has.
    """
    usual = PREPARATIONS[protocol]
    if spin_lock_ms is None:
        return usual
    n_usual = sum(time_ms > 0 and what is Quantity.T1RHO for time_ms, what in usual)
    if len(spin_lock_ms) != n_usual or not all(math.isfinite(one) and one > 0 for one in spin_lock_ms):
        raise ValueError(f"spin_lock_ms: {n_usual} times above 0 ms, as many as the protocol has")
    others = [one for one in usual if one[0] == 0 or one[1] is not Quantity.T1RHO]
    own = [(float(time_ms), Quantity.T1RHO) for time_ms in spin_lock_ms]
    return tuple(sorted((*others, *own), key=lambda one: one[0]))
