"""Text that a trained model writes: the beginnings of some holdout documents, continued."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch

from tasks.trainer.evaluation import Holdout

PROMPTS = 4
PROMPT_TOKENS = 16
NEW_TOKENS = 64
Logits = Callable[[torch.Tensor], torch.Tensor]
"""Tokens (B, T) int64 -> logits (B, T, vocabulary) fp32."""


def generate(
    logits: Logits, prompts: torch.Tensor, new_tokens: int, sequence_length: int, banned: list[int]
) -> torch.Tensor:
    """Continue `prompts` (B, T) by the likeliest token each time, `banned` ones never: (B, T + new_tokens)."""
    tokens = prompts
    for _ in range(new_tokens):
        following = logits(tokens[:, -sequence_length:])[:, -1].clone()
        following[:, banned] = -torch.inf
        tokens = torch.cat([tokens, following.argmax(-1, keepdim=True)], dim=1)
    return tokens


def sample(
    logits: Logits, holdout: Holdout, tokenizer_file: Path, sequence_length: int, device: torch.device
) -> list[dict[str, Any]]:
    """Greedy continuations of holdout documents from the lowest to the highest score: document, score, prompt, text."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    special = [index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special]
    prompt_tokens = min(PROMPT_TOKENS, sequence_length - 1)
    lengths, scores = holdout.documents["tokens"].to_numpy(), holdout.documents["score"].to_numpy()
    long_enough = np.flatnonzero(lengths >= prompt_tokens)
    if len(long_enough) == 0:
        return []
    by_score = long_enough[np.argsort(scores[long_enough], kind="stable")]
    chosen = by_score[np.linspace(0, len(by_score) - 1, min(PROMPTS, len(by_score))).round().astype(int)]
    offsets = holdout.documents["offset"].to_numpy()
    rows = [[holdout.bos, *holdout.tokens[offsets[d] : offsets[d] + prompt_tokens].tolist()] for d in chosen]
    written = generate(logits, torch.tensor(rows, device=device), NEW_TOKENS, sequence_length, special).tolist()
    identifiers = holdout.documents["document"].to_numpy()
    return [
        {
            "document": int(identifiers[document]),
            "score": float(scores[document]),
            "prompt": tokenizer.decode(tokens[1 : prompt_tokens + 1]),
            "text": tokenizer.decode(tokens[prompt_tokens + 1 :]),
        }
        for document, tokens in zip(chosen, written, strict=True)
    ]
