"""Text that a trained model writes: the beginnings of some holdout documents, continued."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tokenizers
import torch

from tasks.engines.builtin.evaluation import EncodedHoldout
from tasks.records.result import Sample

PROMPTS = 4
PROMPT_TOKENS = 16
NEW_TOKENS = 64
PADDED = 128
"""A length that all attention kernels take."""
Logits = Callable[[torch.Tensor], torch.Tensor]
"""Tokens (B, T) int64 -> logits (B, T, vocabulary) fp32."""


def generate(
    logits: Logits, prompts: torch.Tensor, new_tokens: int, banned: list[int], padded: int = PADDED
) -> torch.Tensor:
    """Continue `prompts` (B, T) by the likeliest token each time, `banned` ones never: (B, T + new_tokens).

    Every pass has `padded` positions, a shape that a GPU compiles kernels for once; causal attention does not see what is
    still to come.
    """
    start = prompts.size(1)
    tokens = torch.nn.functional.pad(prompts, (0, padded - start))
    for position in range(start, start + new_tokens):
        following = logits(tokens)[:, position - 1].clone()
        following[:, banned] = -torch.inf
        tokens[:, position] = following.argmax(-1)
    return tokens[:, : start + new_tokens]


def sample(
    logits: Logits, holdout: EncodedHoldout, tokenizer_file: Path, sequence_length: int, device: torch.device
) -> list[Sample]:
    """Greedy continuations of holdout documents from the lowest to the highest score, unrated ones last."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    padded = min(PADDED, sequence_length)
    prompt_tokens = min(PROMPT_TOKENS, padded // 2)
    lengths, scores = holdout.documents["tokens"].to_numpy(), holdout.documents["score"].to_numpy()
    long_enough = np.flatnonzero(lengths >= prompt_tokens)
    if len(long_enough) == 0:
        return []
    by_score = long_enough[np.argsort(scores[long_enough], kind="stable")]
    chosen = by_score[np.linspace(0, len(by_score) - 1, min(PROMPTS, len(by_score))).round().astype(int)]
    offsets = holdout.documents["offset"].to_numpy()
    rows = [[holdout.bos, *holdout.tokens[offsets[d] : offsets[d] + prompt_tokens].tolist()] for d in chosen]
    prompts = torch.tensor(rows, device=device)
    new_tokens = min(NEW_TOKENS, padded - prompts.size(1))
    written = generate(logits, prompts, new_tokens, special, padded).tolist()
    identifiers = holdout.documents["document"].to_numpy()
    return [
        Sample(
            document=int(identifiers[document]),
            score=None if np.isnan(scores[document]) else float(scores[document]),
            prompt=tokenizer.decode(tokens[1 : prompt_tokens + 1]),
            text=tokenizer.decode(tokens[prompt_tokens + 1 :]),
        )
        for document, tokens in zip(chosen, written, strict=True)
    ]
