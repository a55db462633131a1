"""The steps of this room that several flows take. The others belong to the sequence of a preparation."""

from tasks.spec import Questions, Texts
from tasks.steps import step
from tasks.store.root import Root
from tasks.tokens.outside import encode_outside
from tasks.tokens.questions import encode_questions


def outside(root: Root, pool_id: str, texts: Texts) -> str:
    """Encode texts from elsewhere, as a Prefect task; returns the last part of the artifact's name."""
    made = step(
        f"Texts {texts.name} for {pool_id}", lambda progress: encode_outside(root, pool_id, texts, progress=progress)
    )
    return made.path.name


def questions(root: Root, pool_id: str, asked: Questions) -> str:
    """Encode questions, as a Prefect task; returns the last part of the artifact's name."""
    made = step(
        f"Questions {asked.name} for {pool_id}",
        lambda progress: encode_questions(root, pool_id, asked, progress=progress),
    )
    return made.path.name
