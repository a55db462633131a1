"""The kinds of fault, a file for each cause. Each is a function that takes an experiment which has just been started, waits for a
random moment of it, does the harm, and returns when. It sets nothing going again, except as a service manager would, or as the
person would whom the product tells what to do.
"""

from tests.chaos.harness.faults import comparisons, disk, hosts, people, processes, store
from tests.chaos.harness.faults.disk import small_disk
from tests.chaos.harness.faults.kind import KINDS, Harm, Kind

__all__ = ["KINDS", "Harm", "Kind", "comparisons", "disk", "hosts", "people", "processes", "small_disk", "store"]
