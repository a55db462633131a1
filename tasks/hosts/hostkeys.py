"""Whom we trust: host keys in a known-hosts file of our own, in OpenSSH's format, so that ssh and rsync use it too.

A key gets into the file in two ways only, and not before a login with it succeeded: it matches the fingerprint that a person
gave, or it is the first one seen and the caller is told so. A key that differs from the pinned one is refused.
"""

import base64
import hashlib
import os
from pathlib import Path

import paramiko

from tasks.errors import InputError
from tasks.store.artifact import write_atomic
from tasks.store.locks import locked

KEY_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")


def installation_folder() -> Path:
    """Where this installation keeps its known hosts and tunnels: FABRATING_HOME, else `.fabrating`."""
    return Path(os.environ.get("FABRATING_HOME", ".fabrating")).absolute()


def fingerprint_of(key: paramiko.PKey | bytes) -> str:
    """SHA-256 fingerprint of a public key as OpenSSH shows it: `SHA256:` and 43 characters of base64."""
    blob = key if isinstance(key, bytes) else key.asbytes()
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


class KnownHosts:
    """The file with pinned keys: one line a host, `[address]:port type key`."""

    def __init__(self, path: Path):
        self.path = path

    @staticmethod
    def name(address: str, port: int) -> str:
        """The name of a host in the file, as OpenSSH spells it."""
        return address if port == 22 else f"[{address}]:{port}"

    def pinned(self, address: str, port: int) -> paramiko.PKey | None:
        """The pinned key of a host, or None. Raises InputError when the file cannot be parsed."""
        if not self.path.is_file():
            return None
        try:
            keys = paramiko.HostKeys(str(self.path)).lookup(self.name(address, port))
        except (paramiko.SSHException, OSError) as error:
            raise InputError(
                f"The known-hosts file {self.path} cannot be read ({error}): repair or delete it."
            ) from error
        return next(iter(keys.values())) if keys else None

    def pin(self, address: str, port: int, key: paramiko.PKey) -> paramiko.PKey:
        """Write the key of a host into the file, unless the host has one already; returns the one that is there then."""
        with locked(self.path.with_name(f".{self.path.name}.lock")):
            if there := self.pinned(address, port):
                return there
            lines = self.path.read_text() if self.path.is_file() else ""
            line = f"{self.name(address, port)} {key.get_name()} {key.get_base64()}\n"
            write_atomic(self.path, lines + line)
            return key


class FirstKey(paramiko.MissingHostKeyPolicy):
    """Remembers the key of a host that is not pinned yet, as `key`, and goes no further with one that is not `expected`."""

    def __init__(self, expected: str | None):
        self.expected = expected
        self.key: paramiko.PKey | None = None

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self.key = key
        if self.expected not in (None, fingerprint_of(key)):
            raise paramiko.BadHostKeyException(hostname, key, key)
