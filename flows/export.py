"""Write a finished run for another program: Hugging Face, nanochat or plain safetensors."""

from typing import Any

from prefect import flow

from tasks.engines import steps as engines
from tasks.engines.export import Kind
from tasks.spec import Id, Url
from tasks.store.root import DEFAULT_ROOT


@flow(name="export", flow_run_name="{run} to {to}")
def export(run: Id, to: Kind = "hf", root: Url = DEFAULT_ROOT) -> dict[str, Any]:
    """Write a finished run with its tokenizer and a model card as runs/<run>/export/<to> under the root.

    It is made anew when there is a verdict on the run that its card does not tell.

    Args:
        run: Name of a finished run, such as top16-d20-s1-0a1b2c3d4e: a folder below runs/ of the root.
        to: hf for transformers and lm-eval, nanochat for nanochat's own scripts, safetensors for weights, shape and tokenizer alone.
        root: Where artifacts are kept: a folder, file:///folder or az://container/prefix that all workers reach.
    """
    return engines.export(root, run, to)
