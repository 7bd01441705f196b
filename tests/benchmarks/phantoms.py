"""How often a scanner in order is warned of or held, and how soon a drifting one is seen, by simulated control charts.

``python -m tests.benchmarks.phantoms`` prints, for scanners of several precisions, the share of scans that are warned
of and held for nothing, and the scans until a drift or a jump is warned of and held (median, 90th percentile).
"""

import sys
from collections.abc import Sequence

import numpy as np

from processing.control_chart import Chart, ChartRules, PhantomVerdict, control_chart

_KEYS = [(f"V{vial}", quantity) for vial in range(6) for quantity in ("T1rho", "T2")]
_NOMINAL_MS = np.array([30, 25, 45, 36, 60, 50, 80, 68, 110, 95, 160, 140.0])
_PRECISIONS = ((0.003, 0.003), (0.005, 0.005), (0.007, 0.01), (0.01, 0.015))  # SD of a vial, of all vials together
_CHANGES = (("+0.25 % a scan", 0.0025, 0.0), ("+0.5 % a scan", 0.005, 0.0), ("+1 % a scan", 0.01, 0.0))
_JUMPS = (("jump of 2 %", 0.0, 0.02), ("jump of 3 %", 0.0, 0.03), ("jump of 5 %", 0.0, 0.05))
_N_ORDER, _N_CHANGED = 400, 200


def _chart(rng: np.random.Generator, n: int, own: float, common: float, drift: float, step: float) -> Chart:
    together = rng.normal(0, common, (n, 2))[:, np.arange(12) % 2]
    after = np.maximum(np.arange(n) - 9, 0)[:, None]
    table = _NOMINAL_MS * (1 + together + rng.normal(0, own, (n, 12)) + drift * after + step * (after > 0))
    return control_chart([dict(zip(_KEYS, row, strict=True)) for row in table.tolist()], ChartRules())


def _until(chart: Chart, verdicts: Sequence[PhantomVerdict]) -> int:
    later = chart.judgements[10:]
    return next((number for number, one in enumerate(later, start=1) if one.verdict in verdicts), len(later) + 1)


def main() -> int:
    """Print the tables."""
    for own, common in _PRECISIONS:
        rng = np.random.default_rng(1)
        later = [one for _ in range(_N_ORDER) for one in _chart(rng, 34, own, common, 0, 0).judgements[10:]]
        shares = [100 * np.mean([one.verdict is verdict for one in later]) for verdict in PhantomVerdict]
        print(f"\nSD of a vial {100 * own:.1f} %, of all together {100 * common:.1f} %, limits of 10 scans:")
        texts = [f"{share:.1f} %" for share in shares]
        print(f"  in order, {len(later):,} scans: ok {texts[0]}, warned of {texts[1]}, held {texts[2]}")
        for words, drift, step in (*_CHANGES, *_JUMPS):
            charts = [_chart(rng, 46, own, common, drift, step) for _ in range(_N_CHANGED)]
            warned = [_until(chart, (PhantomVerdict.WARNING, PhantomVerdict.HOLD)) for chart in charts]
            held = [_until(chart, (PhantomVerdict.HOLD,)) for chart in charts]
            texts = [f"{np.percentile(one, 50):.0f} ({np.percentile(one, 90):.0f})" for one in (warned, held)]
            print(f"  {words:15s} warned of after {texts[0]:8s} scans, held after {texts[1]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
