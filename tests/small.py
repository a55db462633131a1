"""Small things that tests of several rooms begin with: a pool's tokenizer, a model in which every part matters."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from tasks.engines.builtin.model import GPT
from tasks.records.layout import PoolFolder
from tasks.records.scaling import ModelShape
from tasks.store.artifact import Work
from tasks.store.root import Root
from tasks.tokens.train import train_tokenizer

POOL = "pool-0123456789"
SENTENCE = "the cat sat on the mat 12 times"


def root_with_tokenizer(folder: Path, text: str = SENTENCE, vocab_size: int = 280) -> Root:
    """A root whose POOL has a tokenizer of this text."""
    root = Root(folder)

    def make(work: Work) -> None:
        pq.write_table(pa.table({"text": [text] * 50}), work.temporary("sample.parquet"))
        work.finish("sample.parquet", rows=50)

    root.build(PoolFolder(POOL).sample, make, spec={})
    train_tokenizer(root, POOL, vocab_size)
    return root


def random_model(shape: ModelShape, seed: int = 1) -> GPT:
    """A model in which every part matters; a new one's projections are zero."""
    model = GPT(shape)
    model.init_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model.eval()
