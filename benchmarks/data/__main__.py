"""Benchmarks of the data path.

python -m benchmarks.data peers --files 48 --rows 16000 --repeats 3     ours against scripts, Polars, DuckDB
python -m benchmarks.data floor --files 48 --rows 16000                 where the time goes, against each step alone
python -m benchmarks.data blobs --blobs 3250                            thousands of small blobs under Prefect
python -m benchmarks.data ratings --against CHECKOUT                    index, filter, select 52 M documents with six ratings
python -m benchmarks.data near --files 6                                near copies: recall, what else is found, overhead
python -m benchmarks.data estimate                                      248 GB and 52 M documents, from measured rates
"""

import argparse
import signal
import sys
from pathlib import Path

from benchmarks.data import blobs, compare, floor, near, projection, ratings

DEFAULT = ["script-8", "script-16", "obstore-8", "polars", "polars-600", "duckdb", "ours"]


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)

    def command(name: str, function, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text)
        made.set_defaults(function=function)
        made.add_argument("--folder", type=Path, default=Path(".fabrating/bench-data"), help="raw data and output")
        return made

    peers = command("peers", compare.main, "ours against what else one would use")
    one = command("floor", floor.main, "each step alone, and all of them together")
    for sub in (peers, one):
        sub.add_argument("--files", type=int, default=48)
        sub.add_argument("--rows", type=int, default=16_000)
        sub.add_argument("--repeats", type=int, default=3)
        sub.add_argument("--delay", type=float, default=0.02, help="seconds before each answer of the store")
    peers.add_argument("--share", type=float, default=1.0, help="part of the documents, the best ones")
    peers.add_argument("--warm", action="store_true", help="fill the free memory with page cache before each run")
    peers.add_argument("--peers", nargs="+", default=DEFAULT)
    small = command("blobs", blobs.main, "thousands of small blobs under Prefect on SQLite")
    small.add_argument("--blobs", type=int, default=3_250)
    small.add_argument("--rows", type=int, default=40)
    small.add_argument("--repeats", type=int, default=5, help="runs of each kind")
    rated = command("ratings", ratings.main, "index, filter and select by six ratings")
    rated.add_argument("--documents", type=int, default=52_000_000)
    rated.add_argument("--repeats", type=int, default=1)
    rated.add_argument("--against", help="folder with other code to compare with, which has three ratings")
    copies = command("near", near.main, "near copies of held-out documents")
    copies.add_argument("--held", type=int, default=1_000)
    copies.add_argument("--others", type=int, default=6_000)
    copies.add_argument("--minhash", action="store_true", help="compare with datasketch")
    copies.add_argument("--files", type=int, default=6)
    copies.add_argument("--rows", type=int, default=16_000)
    copies.add_argument("--share", type=float, default=0.165, help="part of the documents that the arm takes")
    copies.add_argument("--repeats", type=int, default=3, help="preparations of each kind; 0: none")
    command("estimate", projection.main, "248 GB and 52 M documents on 2, 16 and 64 cores")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are ended on the way out
    arguments.function(arguments)


if __name__ == "__main__":
    main()
