"""What a verdict or a ladder says of several pairs of arms: each caveat once, with the pairs that it belongs to."""

from collections.abc import Sequence
from typing import Protocol

ALL = "all pairs"


class Said(Protocol):
    """A pair of arms with its finding, and what restricts that: a sentence each."""

    @property
    def a(self) -> str: ...
    @property
    def b(self) -> str: ...
    @property
    def finding(self) -> str: ...
    @property
    def caveats(self) -> tuple[str, ...]: ...


def finding(sentence: str, caveats: Sequence[str]) -> str:
    """What a sentence says before the caveats that it ends with."""
    return sentence.removesuffix(" ".join(caveats)).rstrip()


def own(pairs: Sequence[Said]) -> list[str]:
    """What is said of each pair alone, in the order of the pairs: its finding, and the caveats that no other pair has."""
    spread = _spread(pairs)
    return [" ".join([pair.finding, *(said for said in pair.caveats if len(spread[said]) == 1)]) for pair in pairs]


def shared(pairs: Sequence[Said]) -> dict[str, str]:
    """{the pairs, as "a - b, a - c" or `ALL`: the caveats that these share, each once}; those of most pairs first."""
    found: dict[tuple[int, ...], list[str]] = {}
    for said, where in _spread(pairs).items():
        if len(where) > 1:
            found.setdefault(where, []).append(said)
    return {
        ALL if len(where) == len(pairs) else ", ".join(f"{pairs[n].a} - {pairs[n].b}" for n in where): " ".join(said)
        for where, said in sorted(found.items(), key=lambda each: -len(each[0]))
    }


def sentences(pairs: Sequence[Said]) -> list[str]:
    """All that is said of the pairs: what each has alone, then what several share."""
    return [*own(pairs), *(f"Of {where}: {said}" for where, said in shared(pairs).items())]


def _spread(pairs: Sequence[Said]) -> dict[str, tuple[int, ...]]:
    """{caveat: places of the pairs that have it}, in the order in which they are met."""
    met = dict.fromkeys(said for pair in pairs for said in pair.caveats)
    return {said: tuple(n for n, pair in enumerate(pairs) if said in pair.caveats) for said in met}
