"""What the doctor says of one thing."""

from dataclasses import asdict, dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing looked at: good, worth knowing, or in the way; and what to do about it unless it is good."""

    what: str
    state: Literal["good", "note", "bad"]
    found: str
    remedy: str | None = None

    def row(self) -> dict[str, str | None]:
        return asdict(self)
