"""kill -9 of the node while it receives on 4 associations: ``python -m tests.soak.kill_receiver [--kills 20]``.

After each restart every acknowledged object is recorded once and holds the bytes that were sent, and nothing is there
that is half an object.
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


def run(folder: Path, kills: int, seed: int) -> tuple[int, list[str]]:
    """How many objects were acknowledged, and what is wrong afterwards."""
    chance, data = random.Random(seed), image_bytes()
    node = Node(folder, completion={})
    acknowledged: dict[str, str] = {}
    faults: list[str] = []
    node.start()
    for number in range(kills):
        senders = Senders(node.port, data, (number + 1) * 10_000_000)
        senders.start()
        wait_until(lambda senders=senders: len(senders.acknowledged) > 20, "some objects to be acknowledged", 60)
        time.sleep(chance.uniform(0.0, 1.0))
        if number % 4 == 3:  # one of its processes only
            chance.choice(node.process("reception").children()).kill()
            time.sleep(0.5)
        node.kill()
        senders.stop()
        acknowledged |= senders.acknowledged
        node.start()
        faults += node.ask(lambda database, seen=dict(acknowledged): lost(database, seen))
        faults += node.ask(partial_files)
        print(f"kill {number + 1}: {len(acknowledged)} acknowledged, {len(faults)} faults", flush=True)
    node.stop()
    return len(acknowledged), faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        n_acknowledged, faults = run(Path(folder), options.kills, options.seed)
    print(f"{options.kills} kills, {n_acknowledged} objects acknowledged, {len(faults)} lost, doubled or partial")
    for fault in faults[:20]:
        print(fault)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
