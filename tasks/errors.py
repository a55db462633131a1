"""The errors that people meet. Each message is one sentence: the input, its value, the remedy."""

import errno


class InputError(ValueError):
    """A parameter, a file or a URL that a person must change: never retried, exit status 1."""


class DeniedError(InputError):
    """A store refuses the credential, as one that has expired: somebody renews it, the next attempt reads it anew."""


class StoreError(OSError):
    """An object store does not answer, or not as it should, however often it was asked: later it may."""


class DiskError(OSError):
    """Nothing can be written where an artifact is made: somebody makes room, the next attempt goes on with what is complete."""


class DamagedError(RuntimeError):
    """A file does not hold what its manifest says: named, then rebuilt or refused, never used."""


class ChangedError(RuntimeError):
    """A blob is no longer the one that was indexed (its ETag differs): the run must start from a new index."""


class BusyError(RuntimeError):
    """Another process holds what this one needs (a GPU, a run): the message says who, nothing was touched."""


class SupersededError(BusyError):
    """Another host has taken over what this one held while it was cut off: it stops, and publishes nothing any more."""


class InterruptedRun(RuntimeError):
    """A training was asked to stop and wrote a checkpoint: the same call again goes on from there."""


class TrainingError(RuntimeError):
    """A training stopped by itself, as with a loss that is no number; the message names the last checkpoint."""


class LostProcessError(RuntimeError):
    """A training's process was killed (memory, by hand): another attempt goes on from the newest checkpoint."""


FULL = (errno.ENOSPC, errno.EDQUOT)
"""Numbers of the errors of a full disk."""


def disk_fault(error: OSError) -> tuple[str, str] | None:
    """What is wrong with the disk that could not be written, and the remedy, as parts of a sentence; None for another error."""
    faults = {
        errno.ENOSPC: ("No space is left", "free some"),
        errno.EDQUOT: ("The quota is used up", "free some space"),
        errno.EROFS: ("The file system is read-only", "mount it writable"),
        errno.EACCES: ("Permission is denied", "give this account the right"),
        errno.EIO: ("The disk cannot be read or written", "have it looked at"),
    }
    return faults.get(error.errno or 0)
