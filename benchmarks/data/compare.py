"""Ours against the peers, interleaved in one run on one machine and one store."""

import argparse
from dataclasses import asdict
from statistics import median

from benchmarks.data import corpus
from benchmarks.data.measure import Measured, measure, serving, warm_memory

HEAD = ("wall s", "CPU s", "peak MiB", "wire MB", "requests", "written MB")


def main(arguments: argparse.Namespace) -> None:
    """Make the data, run every peer `repeats` times, each time beginning with another one, print medians and ratios."""
    folder = arguments.folder.absolute()
    raw = corpus.write(folder / "store", arguments.files, arguments.rows)
    size = sum(path.stat().st_size for path in raw.glob("*.parquet"))
    log = folder / "requests.tsv"
    runs: dict[str, list[Measured]] = {name: [] for name in arguments.peers}
    with serving(folder / "store", arguments.delay, log), warm_memory(folder) as warm:
        for repeat in range(arguments.repeats):
            first = repeat % len(arguments.peers)  # what ran before leaves the memory and the disk as it does
            for name in (*arguments.peers[first:], *arguments.peers[:first]):
                if arguments.warm:
                    warm()
                got = measure(name, f"az://{raw.name}", folder / "out", arguments.share, log)
                runs[name].append(got)
                print(f"# {repeat + 1}/{arguments.repeats} {name}: {got.wall:.1f} s", flush=True)
    print(
        f"\n{arguments.files} files, {size / 1e9:.2f} GB, {arguments.files * arguments.rows:,} documents, "
        f"share {arguments.share:g}, {1000 * arguments.delay:g} ms a request, medians of {arguments.repeats}\n"
    )
    medians = {name: {k: median(asdict(m)[k] for m in got) for k in asdict(got[0])} for name, got in runs.items()}
    print("| | " + " | ".join(HEAD) + " |\n|" + " --- |" * (len(HEAD) + 1))
    for name, values in medians.items():
        print(f"| {name} | " + " | ".join(f"{value:,.1f}" for value in values.values()) + " |")
    if "ours" not in runs:
        return
    print("\n| ours against | wall | CPU | memory | wire |\n| --- | --- | --- | --- | --- |")
    for name in runs:
        if name != "ours":
            ratios = [medians["ours"][key] / medians[name][key] for key in ("wall", "cpu", "memory", "wire")]
            print(f"| {name} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    print(f"\nbytes over the wire against the raw data: {medians['ours']['wire'] * 1e6 / size:.3f}")
