"""What an experiment read from the blobs, by the proxy's log, and what of it it had read before."""

from collections import Counter
from collections.abc import Sequence

from tests.chaos.harness.arm import ArmRun
from tests.chaos.harness.proxy import Answer

ROOTS = "roots"
"""The container of experiments whose root is in the store."""
Read = tuple[str, int, int]
"""A range [start, end) of a blob."""


def reads(answers: Sequence[Answer], since: float, until: float = float("inf")) -> Counter[Read]:
    """Ranges that were delivered whole in a time, each with how often."""
    found = (answer.read for answer in list(answers) if answer.read and since <= answer.at < until)
    return Counter(read for read in found if f"/{ROOTS}/" not in read[0])


def by_stage(answers: Sequence[Answer], reference: ArmRun) -> dict[str, Counter[Read]]:
    """Which ranges each stage of an undisturbed preparation reads, and how often."""
    found, since = {}, reference.began
    for stage, at in sorted(reference.stages().items(), key=lambda item: item[1]):
        found[stage] = reads(answers, since, at)
        since = at
    return found


def read_again(answers: Sequence[Answer], at: float, finished: set[str], reference: dict[str, Counter[Read]]) -> int:
    """Bytes read after `at` that only stages which were `finished` then need: 0 if all went on in place.

    A stage that had not finished may read again: a file whose read was broken off counts as not read. It may read parts of
    its ranges, too: of an answer that breaks off, the client asks for the rest.
    """
    allowed = [read for stage, needed in reference.items() if stage not in finished for read in needed]
    again = {
        read: count for read, count in reads(answers, at).items() if not any(_within(read, one) for one in allowed)
    }
    return sum((end - start) * count for (_, start, end), count in again.items())


def _within(read: Read, other: Read) -> bool:
    return read[0] == other[0] and other[1] <= read[1] and read[2] <= other[2]
