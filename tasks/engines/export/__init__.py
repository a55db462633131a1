"""A finished run for other programs: a folder for Hugging Face transformers, nanochat's layout, or plain safetensors.

`folder`              writes any of them
`hub`                 Hugging Face's files, and `modeling_fabrating`, which travels with them and stands alone
`card`                the model card: data, arm, tokens, bits per byte, verdicts
"""

from typing import Literal

Kind = Literal["hf", "nanochat", "safetensors"]
"""hf: for transformers. nanochat: below its base directory. safetensors: weights, shape and tokenizer, nothing else."""
