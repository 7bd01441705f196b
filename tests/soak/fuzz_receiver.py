"""Malformed PDUs and data sets at a reception: ``python -m tests.soak.fuzz_receiver [--seeds 5] [--cases 500]``.

After every case the node answers C-ECHO; at the end it has no more threads, files and temporary files than before, and
has not grown.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node_process import Node
from peers import wait_until
from raw_client import ABORT, DATA, Closed, RawClient, associate_rq, pdu, store_command, store_message, value
from receive_campaign import image_bytes, with_uid

SLOWEST_ECHO_S = 2.0
MOST_GROWTH_MB = 30.0
MOST_LEFT = 2


@dataclass
class Tally:
    """What was seen."""

    cases: int = 0
    slow_echoes: int = 0
    aborts: int = 0
    most_aborts: int = 0


def changed(data: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or put in."""
    content = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(content))
        kind = chance.randrange(5)
        if kind == 0:
            content[at] = chance.randrange(256)
        elif kind == 1:
            del content[at : at + chance.choice((1, 2, 4, 50))]
        elif kind == 2:
            content[at:at] = content[at : at + chance.choice((1, 4, 100))]
        elif kind == 3:
            content[at : at + 4] = chance.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"))
        else:
            content[at:at] = chance.randbytes(chance.choice((1, 8, 200)))
        if not content:
            content = bytearray(b"x")
    return bytes(content)


def cases(chance: random.Random, data: bytes) -> Callable[[RawClient], bytes]:
    """Bytes to send, of a random kind; the client may be in an association by then."""
    uid, whole = with_uid(data, chance.randrange(10**11))
    message = store_message(uid, whole, step=chance.choice((131_066, 4000, 300)))

    def in_association(make: Callable[[], bytes]) -> Callable[[RawClient], bytes]:
        def build(client: RawClient) -> bytes:
            client.associate()
            return make()

        return build

    kinds: list[Callable[[RawClient], bytes]] = [
        lambda client: changed(associate_rq(), chance),
        lambda client: chance.randbytes(chance.choice((1, 7, 74, 3000))),
        lambda client: pdu(chance.randrange(256), chance.randbytes(chance.randrange(300))),
        in_association(lambda: changed(message, chance)),
        in_association(lambda: message[: chance.randrange(len(message))]),
        in_association(lambda: store_message(uid, changed(whole, chance))),
        in_association(lambda: store_message(uid, whole[: chance.randrange(len(whole))])),
        in_association(lambda: pdu(DATA, value(1, 3, changed(store_command(uid), chance)))),
        in_association(lambda: pdu(chance.choice((1, 2, 3, 5, 6, 7, 8, 255)), chance.randbytes(chance.randrange(100)))),
        in_association(lambda: pdu(DATA, chance.randbytes(chance.randrange(200)))),
        in_association(lambda: pdu(DATA, value(chance.randrange(256), chance.randrange(256), message[:200]))),
    ]
    return chance.choice(kinds)


def one_case(port: int, chance: random.Random, data: bytes, tally: Tally) -> None:
    tally.cases += 1
    build = cases(chance, data)
    try:
        with RawClient(port, timeout_s=0.3) as client:
            client.socket.sendall(build(client))
            n_aborts = 0
            try:
                for _ in range(50):
                    kind, _ = client.receive()
                    n_aborts += kind == ABORT
            finally:
                tally.aborts += n_aborts
                tally.most_aborts = max(tally.most_aborts, n_aborts)
                if chance.random() < 0.3:
                    client.reset()
    except (Closed, OSError):
        pass  # what it may answer to nonsense
    start_s = time.monotonic()
    with RawClient(port, timeout_s=30).associate() as healthy:
        if healthy.echo() != 0:
            raise SystemExit("C-ECHO was not answered with Success")
    tally.slow_echoes += time.monotonic() - start_s > SLOWEST_ECHO_S


@dataclass(frozen=True)
class State:
    """What the receiver processes hold."""

    threads: int
    files: int
    rss_mb: float


def state_of(node: Node) -> State:
    receivers = sorted(node.process("reception").children(), key=lambda one: one.create_time())[1:]
    return State(
        sum(one.num_threads() for one in receivers),
        sum(one.num_fds() for one in receivers),
        sum(one.memory_info().rss for one in receivers) / 1e6,
    )


def run(folder: Path, seeds: int, n_cases: int) -> list[str]:
    """What is wrong in the end."""
    data, tally = image_bytes(16), Tally()
    with Node(folder, completion={}, reception={"idle_s": 3.0}, max_associations=1000) as node:
        pids = [one.pid for one in node.process("reception").children()]
        for number in range(200):  # caches and connections to the database fill
            one_case(node.port, random.Random(-number), data, tally)
        before = state_of(node)
        for seed in range(seeds):
            chance = random.Random(seed)
            for _ in range(n_cases):
                one_case(node.port, chance, data, tally)
            print(f"seed {seed}: {tally}", flush=True)

        def is_quiet() -> bool:
            now = state_of(node)
            return max(now.threads - before.threads, now.files - before.files) <= MOST_LEFT

        wait_until(is_quiet, f"threads and files to be as before: {before}, now {state_of(node)}", 60)
        after = state_of(node)
        faults = []
        if [one.pid for one in node.process("reception").children()] != pids:
            faults.append("a process died")
        if after.rss_mb - before.rss_mb > MOST_GROWTH_MB:
            faults.append(f"memory grew from {before.rss_mb:.0f} to {after.rss_mb:.0f} MB")
        if after.threads - before.threads > MOST_LEFT or after.files - before.files > MOST_LEFT:
            faults.append(f"left: {before} {after}")
        if list((node.settings.storage_dir / "inbox" / "incoming").iterdir()):
            faults.append("temporary files are left")
        if tally.slow_echoes:
            faults.append(f"{tally.slow_echoes} echoes took more than {SLOWEST_ECHO_S:g} s")
        if tally.most_aborts > 1:
            faults.append(f"{tally.most_aborts} aborts to one connection")
        print(f"{tally.cases} cases, {before} -> {after}")
    if "Traceback" in node.log or "internal error" in node.log:
        faults.append("an internal error was logged")
    return faults


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--log", type=Path, help="keep the node's files here")
    options = parser.parse_args()
    if options.log is not None:
        faults = run(options.log, options.seeds, options.cases)
    else:
        with tempfile.TemporaryDirectory() as folder:
            faults = run(Path(folder), options.seeds, options.cases)
    for fault in faults:
        print(f"NOT ok: {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
