"""Three days of trouble at five destinations, in simulated time: ``python -m tests.soak.outage [--seed 1]``.

One is down all the while, one takes everything and keeps nothing, one breaks off, is full or refuses at random, one
never reports on commitment, one is well. Results go on coming, and the node is started anew twenty times, often in the
middle of sending. Afterwards all are well, and each object is confirmed at each destination.
"""

import argparse
import logging
import random
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from archive_of_ones_choice import Archive
from outbox_desk import Outbox, later, scp_destination

from service import confirmation
from service.confirmation import confirm_due
from service.delivery import deliver_due

STEP_S = 1800.0
STEPS_OF_TROUBLE = 144  # three days
MOST_STEPS = 4 * STEPS_OF_TROUBLE
STEPS_OF_A_JOB, OBJECTS_OF_A_JOB = 24, 3


class Counting(Archive):
    """Counts what it has answered with Success, and may break off."""

    def __init__(self, chance: random.Random, **choices: Any) -> None:
        super().__init__(**choices)
        self.taken: Counter[str] = Counter()
        self.is_flaky = False
        self._chance = chance

    def _on_store(self, event: Any) -> int:
        if self.is_flaky:
            fate = self._chance.random()
            if fate < 0.2:
                event.assoc.abort()
                return 0xC000
            if fate < 0.4:
                return 0xA700 if fate < 0.3 else 0xC000
        status = super()._on_store(event)
        if status == 0:
            self.taken[str(event.request.AffectedSOPInstanceUID)] += 1
        return status


def run(folder: Path, seed: int) -> tuple[dict[str, Counting], Outbox, int, int]:
    """The archives and the outbox afterwards, and the numbers of restarts and of steps that were needed."""
    chance = random.Random(seed)
    archives = {
        "well": Counting(chance),
        "down": Counting(chance, ae_title="DOWN"),
        "liar": Counting(chance, keeps=lambda uid: False),  # its word on commitment is true
        "flaky": Counting(chance, commits=lambda uid, uids: (uid, uids, [])),
        "silent": Counting(chance, commits=lambda uid, uids: None),
    }
    archives["flaky"].is_flaky = True
    liar = archives["liar"]
    liar.commits = lambda uid, uids: (uid, [one for one in uids if one in liar.kept], [*(set(uids) - liar.kept)])
    outbox = Outbox(folder, *(scp_destination(name, one) for name, one in archives.items()), n_objects=3)
    restarts = set(chance.sample(range(STEPS_OF_TROUBLE), 20))
    for name, archive in archives.items():
        if name != "down":
            archive.start()
    step = 0
    while step < MOST_STEPS:
        if step % STEPS_OF_A_JOB == 5 and step < STEPS_OF_TROUBLE:
            outbox.finish_job(OBJECTS_OF_A_JOB, f"1.2.{1000 + step}")
        if step == STEPS_OF_TROUBLE:
            archives["down"].start()
            archives["flaky"].is_flaky = False
            liar.keeps = lambda uid: True
        is_cut = step in restarts
        for name in archives:
            _turn(outbox, name, step * STEP_S, chance if is_cut else None)
        if is_cut:
            outbox.restart()
        step += 1
        if step % 24 == 0:
            sys.stderr.write(f"{step * STEP_S / 3600:.0f} h\n")
        if step > STEPS_OF_TROUBLE and all(set(outbox.states(name)) == {"confirmed"} for name in archives):
            break
    for archive in archives.values():
        archive.stop()
    return archives, outbox, len(restarts), step


def _turn(outbox: Outbox, name: str, seconds: float, cut: random.Random | None) -> None:
    """What the node does for a destination; where it is ``cut``, it stops in the middle."""
    destination, settings, database = outbox.destination(name), outbox.settings, outbox.database
    stopping = (lambda: False) if cut is None else (lambda: cut.random() < 0.5)
    for more_s in (0.0, 900.0):
        now = partial(later, seconds + more_s)
        deliver_due(database, destination, settings, stopping=stopping, now=now)
        confirm_due(database, destination, settings, now=now)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.outage", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    logging.disable(logging.CRITICAL)
    confirmation.REPORT_WAIT_S = 2.0  # true seconds, that one of them lets pass each time
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        archives, outbox, n_restarts, n_steps = run(Path(folder), seed)
        n_objects = len(outbox.rows("well"))
        hours = (n_steps - STEPS_OF_TROUBLE) * STEP_S / 3600
        print(f"{n_objects} objects for each of {len(archives)} destinations, {n_restarts} restarts")
        print(f"all was there {hours:g} h after the trouble")
        faults = []
        for name, archive in archives.items():
            states = Counter(outbox.states(name))
            twice = sum(number > 1 for number in archive.taken.values())
            lost = n_objects - len(archive.kept)
            print(f"  {name:7} {dict(states)}  lost {lost}  taken more than once {twice}")
            if lost or set(states) != {"confirmed"} or (twice and name != "liar"):
                faults.append(name)
        outbox.database.close()
    print("BREACHED: " + ", ".join(faults) if faults else "ok")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
