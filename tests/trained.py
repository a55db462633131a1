"""A small root that is real from end to end: rated documents, two arms, a finished run of each and a verdict, in seconds."""

import argparse
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from flows.sequence import Steps, prepare_arm, train_arm
from tasks.engines.builtin.model import GPT
from tasks.engines.trained import Trained
from tasks.reports.report import write_verdict
from tasks.spec import ENGAGEMENT, FACTUAL, PEDAGOGICAL, Arm, Pool, Training
from tasks.store.root import Root
from tasks.verdict.judge import judge

TRAINING = Training(
    depth=2, sequence_length=64, window_pattern="SL", batch_tokens=512, tokens=4096, precision="fp32", device="cpu",
    eval_every=8, save_every=8, wandb="disabled",
)  # fmt: skip
ARMS = (
    Arm(name="top", share=0.4, order="shuffled"),
    Arm(name="rand", select="random", share=0.4, order="shuffled"),
)
TEXTS = (
    "The water cycle moves water from the sea to the sky.\n\n  In 1687, rivers: 12,345 m³ – “naïve” café 日本語 🌧️",
    "def rain(drops: int) -> str:\n\treturn f'{drops:>8} <|bos|> drops'\n",
)
"""Texts with what tokenizers differ on; the second has the name of a special token in it."""


@dataclass(frozen=True)
class TinyRoot:
    """Where it lies, its runs and its arms (the better rated first), and its verdict."""

    folder: Path
    runs: tuple[str, ...]
    arms: tuple[str, ...]
    verdict: str
    texts: tuple[str, ...] = TEXTS

    @staticmethod
    def model(trained: Trained) -> GPT:
        """The model of a run, in fp32."""
        model = GPT(trained.shape)
        model.load_state_dict(trained.state())
        return model.eval()


def make_tiny_root(folder: Path) -> TinyRoot:
    """Prepare both arms, train on each and judge them."""
    root, raw = Root(folder / "root"), folder / "raw"
    write_documents(raw)
    sizes = {"holdout_documents": 20, "holdout_fraction": 0.1, "tokenizer_characters": 200_000}
    pool = Pool(source=raw.as_uri(), vocab_size=512, **sizes)
    arms = {arm.name: prepare_arm(root, pool, arm, TRAINING, Steps()).arm_id for arm in ARMS}
    runs = {
        name: [train_arm(root, arm, TRAINING, 1, comparison="tiny").name.split("/")[1]] for name, arm in arms.items()
    }
    verdict = write_verdict(root, judge(root, "tiny", runs))
    return TinyRoot(root.folder, (*runs["top"], *runs["rand"]), tuple(arms.values()), verdict.path.name)


def write_documents(folder: Path) -> None:
    """Paragraphs of the standard library's sources, rated by what stands for an opinion here: how long they are."""
    source, texts = Path(argparse.__file__).parent, []
    for name in ("argparse", "decimal", "random", "statistics", "textwrap", "typing"):
        paragraphs = (source / f"{name}.py").read_text().split("\n\n")
        texts += [textwrap.dedent(text) for text in paragraphs if 200 < len(text) < 900]
    folder.mkdir()
    rated = {column: [1 + len(text) / 300 for text in texts] for column in (PEDAGOGICAL, FACTUAL, ENGAGEMENT)}
    pq.write_table(pa.table({"text": texts, **rated}), folder / "part.parquet", row_group_size=20)
