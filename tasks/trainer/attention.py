"""Causal attention with an optional sliding window, behind one function: `attend`.

The plain backend builds an explicit mask for windows and runs anywhere; GPU backends that need no mask are chosen once, by
`choose_backend`, and named in the log.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, int], Tensor]
"""(q, k, v, window) -> y: (B, T, H, D) each (k and v may have fewer heads), softmax scale 1/sqrt(D)."""


def attend(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Attention of each position to itself and the `window` positions before it.

    q (B, T, H, D), k and v (B, T, H_kv, D) -> (B, T, H, D).
    """
    length, grouped = q.size(1), q.size(2) != k.size(2)
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    if window >= length:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped).transpose(1, 2)
    position = torch.arange(length, device=q.device)
    distance = position[:, None] - position[None, :]
    mask = (distance >= 0) & (distance <= window)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=grouped).transpose(1, 2)
