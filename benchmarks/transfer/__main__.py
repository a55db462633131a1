"""Shards between two hosts on this machine: our streams against one plain rsync on the same link, and through a cut.

    python -m benchmarks.transfer [--megabytes 2000] [--link-mbit 0] [--streams 4] [--rounds 2]

Two real sshd in namespaces of their own, joined by a virtual cable (`--link-mbit`: its rate, 0 for as fast as it goes).
Both ways copy the same shards directly from host to host and alternate, so that other load on this machine hits both
alike. The plain one is `rsync -a` over ssh with its defaults. Of ours, the sending is timed, and all of it: every file is
hashed at both ends, which the plain one leaves out.
Then the same shards are sent once more while the cable is cut, the connections are killed and a file is damaged.
Needs root; prints JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from tasks.hosts.bridge import bridge
from tasks.hosts.folders import hash_files
from tasks.hosts.hostkeys import KnownHosts
from tasks.hosts.ssh import Remote
from tasks.hosts.transfer import Place, inventory, place, transfer
from tests.hosts.lab import Host, Lab, parameters, unable

NAME = "arms/bench-0000000000/text"
SHARD = 50_000_000


def plain_rsync(source: Place, target: Place) -> float:
    """Seconds of one `rsync -a` with ssh's defaults, started on the source."""
    target.machine.run('mkdir -p "$1"', target.path(NAME))
    with bridge(source.machine, target.machine) as road:
        ssh = f"ssh -o UserKnownHostsFile={road.known_hosts} -o StrictHostKeyChecking=yes -p {target.machine.host.port}"
        command = road.command(
            ["rsync", "-a", "-s", "-e", ssh, f"{source.path(NAME)}/", f"{{target}}:{target.path(NAME)}/"]
        )
        started = time.monotonic()
        subprocess.run(command, env=road.environment, check=True, stdin=subprocess.DEVNULL)
        return time.monotonic() - started


def harm(target: Host, parent: str, half: threading.Event) -> None:
    """Cut the cable for three seconds, damage a file that is complete, kill every connection."""
    half.wait()
    target.cut()
    time.sleep(3)
    target.mend()
    target.run(
        f'cd "{parent}"/.*.incoming && for f in shard*; do [ "$(stat -c %s $f)" = {SHARD} ] && break; done; date=$(stat -c %y $f) && '
        'printf X | dd of=$f bs=1 seek=12345678 conv=notrunc status=none && touch -d "$date" $f'
    )
    target.run("pkill -u rented -x sshd || pkill -u rented -x sshd-session", user="root")


def through_harm(source: Place, target: Place, machine: Host, streams: int) -> dict[str, object]:
    """Send the shards while the link is harmed; what happened, and whether every file is right in the end."""
    half = threading.Event()

    def watch(stage: str, done: int, total: int, counters: dict[str, float]) -> None:
        if done > total / 2:
            half.set()

    parent = target.path(NAME).rpartition("/")[0]
    thread = threading.Thread(target=harm, args=(machine, parent, half), daemon=True)
    thread.start()
    moved = transfer(source, target, NAME, streams=streams, progress=watch)
    thread.join(60)
    files, _ = inventory(source, NAME)
    arrived = hash_files(target.machine, target.path(NAME), files)
    right = sum(arrived.get(record.path) == record.sha256 for record in files)
    return {
        "files": len(files),
        "right": right,
        "sent_again": moved.again,
        "rounds": moved.rounds,
        "seconds": moved.seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.transfer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, default=2_000)
    parser.add_argument("--link-mbit", type=int, default=0)
    parser.add_argument("--streams", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if reason := unable():
        sys.exit(reason)
    disk = f"{options.megabytes * 2 + 1000}m"
    with tempfile.TemporaryDirectory() as folder, Lab() as lab:
        os.environ["FABRATING_HOME"] = folder
        machines = [lab.host("from", disk=disk), lab.host("to", disk=disk)]
        known = KnownHosts(Path(folder) / "known_hosts")
        with Remote(parameters(machines[0]), known) as first, Remote(parameters(machines[1]), known) as second:
            source, target = place(first, "root"), place(second, "root")
            shards = max(1, options.megabytes * 1_000_000 // SHARD)
            first.run(
                'mkdir -p "$1" && cd "$1" && for i in $(seq 1 "$2"); do head -c "$3" /dev/urandom >shard_$i.parquet; done',
                *(source.path(NAME), shards, SHARD),
                timeout=600,
            )
            if options.link_mbit:
                machines[0].slow(options.link_mbit)
            seconds: dict[str, list[float]] = {"plain": [], "ours": [], "ours with verification": []}
            for _ in range(options.rounds):
                second.run('rm -rf "$1"', target.root)
                seconds["plain"].append(plain_rsync(source, target))
                second.run('rm -rf "$1"', target.root)
                moved = transfer(source, target, NAME, streams=options.streams)
                seconds["ours"].append(moved.sending_seconds)
                seconds["ours with verification"].append(moved.seconds)
            second.run('rm -rf "$1"', target.root)
            harmed = through_harm(source, target, machines[1], options.streams)
    megabytes = shards * SHARD / 1e6
    rates = {way: round(megabytes / statistics.median(values), 1) for way, values in seconds.items()}
    result = {
        "megabytes": megabytes,
        "link_mbit": options.link_mbit or None,
        "streams": options.streams,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "seconds": {way: [round(value, 2) for value in values] for way, values in seconds.items()},
        "megabytes_per_second": rates,
        "ratio": {way: round(rate / rates["plain"], 2) for way, rate in rates.items() if way != "plain"},
        "through_harm": harmed,
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
