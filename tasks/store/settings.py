"""Settings and credentials that a person keeps in a file `.env`, the same for every command and every host."""

from pathlib import Path

from dotenv import load_dotenv


def load_settings() -> None:
    """Add to the environment what the nearest `.env` above this package says; what is set already stays."""
    for folder in Path(__file__).resolve().parents:
        if (folder / ".env").is_file():
            load_dotenv(folder / ".env")
            return
