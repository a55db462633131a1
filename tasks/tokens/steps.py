"""The step of this room that several flows take. The others belong to the sequence of a preparation."""

from tasks.spec import Texts
from tasks.steps import step
from tasks.store.root import Root
from tasks.tokens.outside import encode_outside


def outside(root: Root, pool_id: str, texts: Texts) -> str:
    """Encode texts from elsewhere, as a Prefect task; returns the last part of the artifact's name."""
    made = step(
        f"Texts {texts.name} for {pool_id}", lambda progress: encode_outside(root, pool_id, texts, progress=progress)
    )
    return made.path.name
