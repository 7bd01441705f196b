"""The fit against scipy, DOSMA, the Cramér-Rao bound and the limits of the machine, all in one run.

Run with ``python -m tests.benchmarks.fitting --dosma DIR``. DOSMA 0.1.2 needs Python 3.9 and numpy below 2, so it gets
an environment of its own in DIR, made on the first run; ``--python39`` tells where that Python is. Without it all but
DOSMA is measured, and that is said. Everything is counted in CPU seconds of one thread; the ratios depend on the
machine far less than the seconds do.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.optimize import curve_fit, leastsq

from processing import decay
from processing.fitting import FitRules, FitStatus, RelaxationFit, fit_monoexponential

Times = tuple[float, ...]
Signal = npt.NDArray[np.float64]

PROTOCOLS: dict[str, Times] = {
    "MAPSS T1rho": (0.0, 10.0, 40.0, 80.0),
    "MAPSS T2": (0.0, 12.8, 25.7, 51.4),
    "FSE T1rho": (0.0, 40.0, 80.0, 120.0),
}
VOXELS = 60_000
DOSMA = ("dosma==0.1.2", "numpy==1.23.5", "scipy==1.10.1")

#: Run by DOSMA's Python: fits the volumes of a file as DOSMA does by default, but with room for long times.
_DOSMA_SCRIPT = """
import json, sys, time, warnings
warnings.simplefilter("ignore")
import numpy as np
from dosma.core.fitting import MonoExponentialFit
from dosma.core.med_volume import MedicalVolume
data = np.load(sys.argv[1])
volumes = [MedicalVolume(echo.reshape(-1, 1, 1), np.eye(4)) for echo in data["signal"]]
start = time.process_time()
fitted, _ = MonoExponentialFit(bounds=(0, 1000), tc0="polyfit", decimal_precision=6).fit(list(data["times"]), volumes)
spent = time.process_time() - start
np.save(sys.argv[2], np.asarray(fitted.volume).ravel())
print(json.dumps({"cpu_s": spent}))
"""


def rician(rng: np.random.Generator, time_ms: Signal, times_ms: Times, snr: Signal) -> Signal:
    """Magnitudes (echoes, voxels) of S0 = 1000 in noise of 1000 / snr in each channel."""
    clean = 1000 * np.exp(-np.array(times_ms)[:, None] / time_ms)
    noise = rng.normal(size=(2, *clean.shape)) * 1000 / snr
    return np.hypot(clean + noise[0], noise[1])


def discs(seed: int, times_ms: Times, voxels: int = VOXELS) -> Signal:
    """Voxels as discs have them: T 20 to 150 ms, SNR 25 to 75."""
    rng = np.random.default_rng(seed)
    return rician(rng, rng.uniform(20, 150, voxels), times_ms, rng.uniform(25, 75, voxels))


def best_cpu_s(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of the quickest of several runs."""
    spent = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        spent.append(time.process_time() - start)
    return min(spent)


def spread_against_bound() -> None:
    """SD over voxels against the Cramér-Rao bound, of T and of R = 1/T, and the standard error's mean and median."""
    print("\nSD over 40,000 voxels in units of the Cramér-Rao bound, and the standard error in units of the SD")
    print("times         T ms  SNR   CRB ms  SD of T  SD of R   SE rms  SE median")
    rng = np.random.default_rng(5)
    for name, times_ms in PROTOCOLS.items():
        times = np.array(times_ms)
        for truth in (40.0, 70.0, 110.0, 150.0):
            for snr in (20.0, 50.0):
                decaying = np.exp(-times / truth)
                signal = decaying[:, None] + rng.normal(size=(len(times), 40_000)) / snr
                fit = fit_monoexponential(signal, times_ms)
                jacobian = np.stack([decaying, times / truth**2 * decaying], axis=1)
                bound = float(np.sqrt(np.linalg.inv(jacobian.T @ jacobian)[1, 1]) / snr)
                spread = np.nanstd(fit.time_ms)
                of_rate = np.nanstd(1 / fit.time_ms) * truth**2
                rms, median = np.sqrt(np.nanmean(fit.standard_error_ms**2)), np.nanmedian(fit.standard_error_ms)
                print(
                    f"{name:12s} {truth:5.0f} {snr:4.0f}  {bound:7.2f}  {spread / bound:7.3f}  {of_rate / bound:7.3f}"
                    f"  {rms / spread:7.3f}  {median / spread:9.3f}"
                )


def bias_against_noise_floor() -> None:
    """Bias at SNR 10 with and without the noise floor, of the median over all voxels and of the mean of the fitted."""
    print("\nBias in ms at S0 / noise = 10, 40,000 voxels: median of all voxels (without a fit: short or long)")
    print("times         T ms   plain   noise floor   (mean of the fitted: plain, noise floor; not fitted)")
    rng = np.random.default_rng(3)
    for name, times_ms in PROTOCOLS.items():
        for truth in (20.0, 30.0, 50.0, 70.0, 90.0, 110.0):
            signal = rician(rng, np.full(40_000, truth), times_ms, np.full(40_000, 10.0))
            plain = fit_monoexponential(signal, times_ms)
            floor = fit_monoexponential(signal, times_ms, rules=FitRules(noise_sd=100.0))
            lost = np.mean(floor.status != FitStatus.FITTED)
            print(
                f"{name:12s} {truth:5.0f}  {_median(plain, truth):6.2f}  {_median(floor, truth):12.2f}"
                f"    {np.nanmean(plain.time_ms) - truth:5.2f}  {np.nanmean(floor.time_ms) - truth:5.2f}  {lost:6.1%}"
            )


def _median(fit: RelaxationFit, truth: float) -> float:
    """Bias of the median. A voxel without a fit counts as short where T is up to 50 ms, as long where it is longer."""
    lost = 0.0 if truth <= 50 else np.inf
    return float(np.median(np.where(fit.status == FitStatus.FITTED, fit.time_ms, lost))) - truth


def noise_free() -> None:
    """Largest error for T of 5 to 500 ms without noise."""
    truth = np.geomspace(5, 500, 20_000)
    print("Noise-free, T 5 to 500 ms: largest error", end="")
    for name, times_ms in PROTOCOLS.items():
        clean = 1000 * np.exp(-np.array(times_ms)[:, None] / truth)
        print(f"; {name} {np.abs(fit_monoexponential(clean, times_ms).time_ms - truth).max():.1e} ms", end="")
    print()


def scipy_loop(signal: Signal, times_ms: Times) -> tuple[Signal, float]:
    """T in ms by curve_fit (Levenberg-Marquardt) voxel by voxel from a log-linear start; CPU seconds."""
    times = np.array(times_ms)
    time_ms = np.full(signal.shape[1], np.nan)
    start = time.process_time()
    for voxel, y in enumerate(signal.T):
        slope, intercept = np.polyfit(times, np.log(y), 1, w=y)
        try:
            (_, rate), _ = curve_fit(
                lambda t, s0, rate: s0 * np.exp(-t * rate),
                times,
                y,
                p0=(np.exp(intercept), -slope),
                ftol=1e-12,
                xtol=1e-12,
                gtol=1e-12,
            )
        except RuntimeError:  # not converged
            continue
        time_ms[voxel] = 1 / rate
    return time_ms, time.process_time() - start


def against_scipy(signal: Signal, times_ms: Times) -> float:
    """Largest difference to curve_fit; returns its CPU seconds per voxel."""
    fit = fit_monoexponential(signal, times_ms)
    reference, spent_s = scipy_loop(signal, times_ms)
    fitted = fit.status == FitStatus.FITTED
    difference = np.abs(fit.time_ms - reference)[fitted & np.isfinite(reference)]
    print(
        f"curve_fit on {signal.shape[1]:,} Rician voxels (T 20 to 150 ms, SNR 25 to 75): largest difference"
        f" {difference.max():.1e} ms, median {np.median(difference):.0e}; fitted by us {fitted.sum():,}, by curve_fit"
        f" {np.isfinite(reference).sum():,}"
    )
    return spent_s / signal.shape[1]


def exponentials_of_textbook(signal: Signal, times_ms: Times, voxels: int = 1000) -> float:
    """Exponentials and logarithms a voxel that MINPACK's Levenberg-Marquardt needs, with derivatives, to 1e-10."""
    times, counts = np.array(times_ms), []
    for y in signal.T[:voxels]:
        slope, intercept = np.polyfit(times, np.log(y), 1, w=y)
        *_, told, _, _ = leastsq(
            lambda p, y=y: p[0] * np.exp(-times * p[1]) - y,
            (np.exp(intercept), -slope),
            Dfun=lambda p, y=y: np.stack([np.exp(-times * p[1]), -times * p[0] * np.exp(-times * p[1])]),
            col_deriv=True,
            full_output=True,
            ftol=1e-10,
            xtol=1e-10,
            gtol=0.0,
        )
        counts.append(told["nfev"] + told["njev"])
    return len(times) * (1 + float(np.mean(counts)))


def exponentials_of_ours(signal: Signal, times_ms: Times) -> float:
    """Exponentials and logarithms a voxel that our fit makes."""
    counted, evaluate = 0, decay._evaluate

    def counting(work: decay._Workspace, powers: Signal) -> None:
        nonlocal counted
        counted += work.signal[1:].size
        evaluate(work, powers)

    decay._evaluate = counting
    try:
        fit_monoexponential(signal, times_ms)
    finally:
        decay._evaluate = evaluate
    return len(times_ms) + counted / signal.shape[1]


def dosma_s_per_voxel(signal: Signal, times_ms: Times, folder: Path | None, python39: str | None) -> float | str:
    """CPU seconds a voxel that DOSMA takes, or why that was not measured."""
    if folder is None:
        return "no folder for its environment (--dosma DIR)"
    python = folder / "bin" / "python"
    if not python.exists():
        base = python39 or shutil.which("python3.9")
        if base is None:
            return "there is no Python 3.9 (--python39)"
        made = subprocess.run([base, "-m", "venv", str(folder)], check=False, capture_output=True)
        if made.returncode:
            return f"its environment could not be made with {base}: {made.stderr.decode().strip()[:100]}"
    if subprocess.run([str(python), "-c", "import dosma"], check=False, capture_output=True).returncode:
        installed = subprocess.run(
            [str(python), "-m", "pip", "install", "-q", *DOSMA], check=False, capture_output=True
        )
        if installed.returncode:
            return f"it could not be installed: {installed.stderr.decode()[-300:]}"
    with tempfile.TemporaryDirectory() as scratch:
        data, answer = Path(scratch, "signal.npz"), Path(scratch, "t.npy")
        np.savez(data, signal=signal, times=np.array(times_ms))
        command = [str(python), "-c", _DOSMA_SCRIPT, str(data), str(answer)]
        told = subprocess.run(command, check=False, capture_output=True, text=True)
        if told.returncode:
            return f"it failed: {told.stderr[-300:]}"
        spent_s = float(json.loads(told.stdout.splitlines()[-1])["cpu_s"])
        theirs = np.load(answer)
    ours = fit_monoexponential(signal, times_ms).time_ms
    with np.errstate(invalid="ignore"):
        difference = np.abs(ours - theirs)[theirs > 0]
    print(
        f"DOSMA on {signal.shape[1]:,} of them: median difference {np.median(difference):.0e} ms;"
        f" {np.mean(theirs == 0):.2%} of the voxels set to 0 (R² below 0.9)"
    )
    return spent_s / signal.shape[1]


def seconds_per_exponential() -> float:
    """Of numpy's float64 exp, on the length of array on which it is quickest."""
    seconds = []
    for length in (2048, 8192, 16_384, 65_536):
        x, calls = np.linspace(-3, 0, length), 1_000_000 // length
        out = np.empty_like(x)
        spent_s = best_cpu_s(lambda x=x, out=out, calls=calls: [np.exp(x, out=out) for _ in range(calls)], 3)
        seconds.append(spent_s / (calls * length))
    return min(seconds)


def seconds_per_byte() -> float:
    """Of a sum of two arrays that are far larger than the cache."""
    a, b, c = (np.ones(8_000_000) for _ in range(3))
    return best_cpu_s(lambda: np.add(a, b, out=c), 2) / (3 * a.nbytes)


def speed(folder: Path | None, python39: str | None, scipy_voxels: int) -> None:
    """Voxels a second of each, and ratios."""
    times_ms = PROTOCOLS["MAPSS T1rho"]
    signal = discs(0, times_ms)
    scipy_s = against_scipy(signal[:, :scipy_voxels], times_ms)
    dosma_s = dosma_s_per_voxel(signal[:, :20_000], times_ms, folder, python39)
    ours_s, exp_s, byte_s = np.inf, np.inf, np.inf
    for _ in range(10):  # in turn, so that what else the machine does falls on all alike
        ours_s = min(ours_s, best_cpu_s(lambda: fit_monoexponential(signal, times_ms), 5) / VOXELS)
        exp_s, byte_s = min(exp_s, seconds_per_exponential()), min(byte_s, seconds_per_byte())
    floor_s = best_cpu_s(lambda: fit_monoexponential(signal, times_ms, rules=FitRules(noise_sd=20.0)), 2) / VOXELS
    textbook, made = exponentials_of_textbook(signal, times_ms), exponentials_of_ours(signal, times_ms)
    moved = 8 * len(times_ms) + 4 * 8 + 1  # signal in; four numbers and the status out
    print("\n                                                   voxels/s    discnode is")
    for name, one_s in (
        ("discnode", ours_s),
        ("discnode, with a noise floor", floor_s),
        ("scipy curve_fit, voxel by voxel", scipy_s),
        ("DOSMA 0.1.2", dosma_s),
        (f"memory limit, {moved} bytes a voxel", moved * byte_s),
        (f"exp limit, {textbook:.1f} exp/log a voxel as MINPACK makes", textbook * exp_s),
        (f"exp limit, {made:.1f} exp/log a voxel as discnode makes", made * exp_s),
    ):
        if isinstance(one_s, str):
            print(f"{name:48s}  not measured: {one_s}")
            continue
        ratio = one_s / ours_s
        print(f"{name:48s}  {1 / one_s:11,.0f}  " + (f"{ratio:8.1f} x" if ratio >= 1 else f"{ratio:10.3f} of it"))


def main() -> int:
    """Measure everything; returns 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dosma", type=Path, help="folder of DOSMA's environment, made if it is not there")
    parser.add_argument("--python39", help="a Python 3.9 to make it with; default: python3.9 on the path")
    parser.add_argument(
        "--voxels", type=int, default=VOXELS, help="voxels that scipy fits (a fifth of a millisecond each)"
    )
    options = parser.parse_args()
    noise_free()
    speed(options.dosma, options.python39, options.voxels)
    spread_against_bound()
    bias_against_noise_floor()
    return 0


if __name__ == "__main__":
    sys.exit(main())
