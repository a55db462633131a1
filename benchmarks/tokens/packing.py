"""Which packing learns more from equally many trained tokens: documents split over rows, or cropped to fit?

    python -m benchmarks.tokens.packing SOURCE [--seeds 6] [--depth 2] [--sequence-length 256] [--tokens 1000000]

SOURCE is a folder or URL of rated parquet files. One shuffled arm of the whole pool is packed both ways; each seed trains one
model on either, in fp32, whose replicates are quiet. Prints bits per byte on the holdout, and the mean difference with its
95 % interval over seeds, paired by seed.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from scipy.stats import t as student

from flows.sequence import Steps, prepare_arm, train_arm
from tasks.spec import Arm, Pool, Training
from tasks.store.root import Root

WAYS = ("split", "crop")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokens.packing", description=__doc__.split("\n\n")[0])
    parser.add_argument("source")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--depth", type=int, default=2)
    parser.add_argument("--sequence-length", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--vocab-size", type=int, default=4_096)
    parser.add_argument("--root", type=Path, help="where artifacts are kept; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Root(options.root or folder), options)


def measure(root: Root, options: argparse.Namespace) -> None:
    pool = Pool(name="packing", source=options.source, vocab_size=options.vocab_size, tokenizer_characters=5_000_000)
    arm = Arm(name="all", select="all", share=1.0, order="shuffled", documents_per_shard=2_000)
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(1, options.seeds + 1):
        for way in WAYS:
            training = Training(
                depth=options.depth,
                sequence_length=options.sequence_length,
                packing=way,
                window_pattern="L",
                batch_tokens=32 * options.sequence_length,
                tokens=options.tokens // (32 * options.sequence_length) * 32 * options.sequence_length,
                precision="fp32",
                eval_every=10_000,
                save_every=10_000,
                wandb="disabled",
            )
            made = prepare_arm(root, pool, arm, training, Steps())
            found[way].append(float(train_arm(root, made.arm_id, training, seed).facts["bpb"]))
            facts = made.packed.facts
            share = facts["trained_bytes"] / facts["bytes"]
            print(
                f"seed {seed} {way:5}: {found[way][-1]:.4f} bits per byte; the rows hold {share:.1%} of the text",
                flush=True,
            )
    differences = np.array(found["split"]) - np.array(found["crop"])
    reach = student.ppf(0.975, len(differences) - 1) * differences.std(ddof=1) / len(differences) ** 0.5
    low, high = differences.mean() - reach, differences.mean() + reach
    print(f"split - crop: {differences.mean():+.4f} bits per byte, 95 % interval {low:+.4f} to {high:+.4f}")


if __name__ == "__main__":
    main()
