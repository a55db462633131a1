"""The written estimate for 248 GB and 52 M documents, from the measured rates in `tasks.corpus.arm.estimate`."""

import argparse

from tasks.corpus.arm.estimate import estimate

DOCUMENTS, RAW = 52_000_000, 248e9


def main(arguments: argparse.Namespace) -> None:
    """Print the table."""
    print("| cores | Gbit/s | share | read GB | minutes | limited by | memory GB | disk GB |\n|" + " --- |" * 8)
    for share in (0.165, 1.0):
        for cores in (2, 16, 64):
            for gbit in (1, 10):
                made = estimate(DOCUMENTS, RAW, cores=cores, gbit=gbit, share=share)
                print(
                    f"| {cores} | {gbit} | {share:g} | {made.read_bytes / 1e9:.0f} | {made.seconds / 60:.1f} | "
                    f"{made.limited_by} | {made.memory_bytes / 1e9:.1f} | {made.disk_bytes / 1e9:.0f} |"
                )
