"""The zoo as a Markdown table: what goes in and what comes out. ``python -m tests.benchmarks.zoo [--shared FOLDER]``.

``--shared``: also every file of a folder of other people's headers and broken files, each file an exam of its own; for
these only what became of them is told.
"""

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))  # as pytest does

from exam_zoo import ZOO, Specimen, Verdict, judge


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, help="folder of further files, each judged alone")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    started = time.process_time()
    n_wrong = 0
    print("| exam | verdict | in words |")
    print("|---|---|---|")
    with tempfile.TemporaryDirectory() as root:
        for number, specimen in enumerate(ZOO):
            folder = Path(root) / f"{number:03d}"
            specimen.build(folder)
            verdict = judge(folder, specimen)
            is_right = (verdict.measured, verdict.codes) == (specimen.measured, specimen.codes)
            n_wrong += not is_right
            print(_row(specimen.name, verdict, "" if is_right else " **wrong**"))
    if options.shared is not None:
        files = sorted(path for path in options.shared.rglob("*") if path.is_file())
        for path in files:
            verdict = judge(path, Specimen(path.name, "real", lambda folder: None))
            print(_row(str(path.relative_to(options.shared)), verdict, ""))
    spent_s = time.process_time() - started
    print(f"\n{len(ZOO)} exams, {n_wrong} with a wrong verdict; {spent_s:.1f} CPU s with making them", file=sys.stderr)
    return 1 if n_wrong else 0


def _row(name: str, verdict: Verdict, mark: str) -> str:
    if verdict.exam is None:
        text = verdict.text
    else:
        text = "; ".join(
            f"{stack.role.value} {', '.join(f'{one:g}' for one in stack.times_ms)} ms" for stack in verdict.exam.stacks
        )
        text = f"{verdict.exam.background.array.shape[0]} slices; {text or 'anatomy'}"
    text = text.replace("|", "\\|").replace("\n", " ")
    return f"| {name} | {verdict.word}{mark} | {text[:160]}{'…' if len(text) > 160 else ''} |"


if __name__ == "__main__":
    sys.exit(main())
