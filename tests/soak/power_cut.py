"""Power cuts while the node receives on 8 associations: ``python -m tests.soak.power_cut [--cuts 10]``. Needs root.

The storage folder is an ext4 file system in a file. The kernel is told to shut it down without writing its journal
(EXT4_IOC_SHUTDOWN), which is what a power cut leaves; then it is mounted anew and the node started. Every acknowledged
object must be there, whole, and recorded within 30 s.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from node_process import Node
from peers import wait_until
from receive_campaign import Senders, image_bytes, lost, partial_files

from tests.soak.own_disk import Disk

_SIZE_MB = 600
_INDEXED_WITHIN_S = 30.0


def run(folder: Path, cuts: int, seed: int) -> tuple[int, list[str]]:
    """How many objects were acknowledged, and what is wrong afterwards."""
    chance, data = random.Random(seed), image_bytes()
    disk = Disk(folder, _SIZE_MB)
    node = Node(
        folder, completion={}, storage_dir=str(disk.mount_point / "node"), reception={"full_mb": 0, "closed_mb": 0}
    )
    acknowledged: dict[str, str] = {}
    faults: list[str] = []
    node.start()
    try:
        for number in range(cuts):
            senders = Senders(node.port, data, (number + 1) * 100_000_000, n_associations=8)
            senders.start()
            wait_until(lambda senders=senders: len(senders.acknowledged) > 50, "some objects to be acknowledged", 60)
            time.sleep(chance.uniform(0.0, 2.0))
            acknowledged |= dict(
                senders.acknowledged
            )  # what is answered later, a machine without power would not answer
            disk.cut()
            node.kill()
            senders.stop()
            disk.unmount()
            disk.mount()
            start_s = time.monotonic()
            node.start()
            took_s = time.monotonic() - start_s
            if took_s > _INDEXED_WITHIN_S:
                faults.append(f"cut {number + 1}: ready after {took_s:.0f} s")
            faults += node.ask(lambda database, seen=dict(acknowledged): lost(database, seen))
            faults += node.ask(partial_files)
            print(f"cut {number + 1}: {len(acknowledged)} acknowledged, {len(faults)} faults", flush=True)
        node.stop()
    finally:
        disk.unmount()
    return len(acknowledged), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        n_acknowledged, faults = run(Path(folder), options.cuts, options.seed)
    print(f"{options.cuts} power cuts, {n_acknowledged} objects acknowledged, {len(faults)} lost or not as they were")
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
