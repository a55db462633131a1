"""Private key files in every form that clouds and tools write: OpenSSH's own, traditional PEM, PKCS#8, with a passphrase or without."""

import io
import os
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
    load_ssh_private_key,
)

from tasks.errors import InputError
from tasks.hosts.hostkeys import installation_folder
from tasks.store.artifact import fingerprint

PASSPHRASE = "FABRATING_SSH_PASSPHRASE"
KINDS = {
    RSAPrivateKey: paramiko.RSAKey,
    EllipticCurvePrivateKey: paramiko.ECDSAKey,
    Ed25519PrivateKey: paramiko.Ed25519Key,
}
OTHERS = {
    "PuTTY-User-Key-File": "is a key of PuTTY: convert it with puttygen KEY -O private-openssh -o NEW, and give NEW",
    "-cert-v01@openssh.com ": "is a certificate: give the private key that it belongs to",
    "BEGIN CERTIFICATE": "is a certificate: give the private key that it belongs to",
    "PUBLIC KEY": "is a public key: give the private one, the file without .pub",
    "ssh-": "is a public key: give the private one, the file without .pub",
    "ecdsa-sha2-": "is a public key: give the private one, the file without .pub",
    "OPENSSH PRIVATE KEY": "is a private key that is damaged or of a kind that is not supported: copy it again",
    "PRIVATE KEY": "is a private key that is damaged or of a kind that is not supported: copy it again",
}
"""What a file that cannot be loaded is, by what its beginning has."""


def load_key(path: str) -> paramiko.PKey:
    """A private key file. Raises InputError when it is missing, encrypted without the passphrase, or no key, saying what it is."""
    try:
        data = prepared_key(path).read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"The key file {path} does not exist: give the private key as key_file.") from error
    except OSError as error:
        raise InputError(
            f"The key file {path} cannot be read ({error.strerror}): give the private key as key_file."
        ) from error
    try:
        key = _parsed(data, None)
    except TypeError:
        key = _opened(path, data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(f"The key file {path} {_what(data)}.") from error
    kind = next((ours for theirs, ours in KINDS.items() if isinstance(key, theirs)), None)
    if kind is None:
        raise InputError(f"The key file {path} is neither RSA, ECDSA nor Ed25519: make one with ssh-keygen -t ed25519.")
    plain = key.private_bytes(
        Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()
    ).decode()  # the one form that paramiko reads of all
    loaded = kind.from_private_key(io.StringIO(plain))
    certificate = Path(f"{path}-cert.pub").expanduser()
    if certificate.is_file():
        loaded.load_certificate(str(certificate))
    return loaded


def encrypted(path: str) -> bool:
    """Whether a private key file needs a passphrase."""
    try:
        _parsed(prepared_key(path).read_bytes(), None)
    except TypeError:
        return True
    except (ValueError, UnsupportedAlgorithm, OSError):
        return False
    return False


def prepared_key(path: str) -> Path:
    """The key file as OpenSSH takes it: itself, or a copy of ours with Unix line endings that only we can read."""
    file = Path(path).expanduser().absolute()
    if not file.is_file():
        return file
    data = file.read_bytes()
    clean = data.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
    if clean == data and not file.stat().st_mode & 0o077:
        return file
    copy = installation_folder() / "keys" / fingerprint(str(file))
    if not copy.is_file() or copy.read_bytes() != clean:
        copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = copy.with_suffix(".new")
        new.touch(mode=0o600)
        new.write_bytes(clean)
        new.replace(copy)
    return copy


def _parsed(data: bytes, passphrase: bytes | None):
    """Raises TypeError for an encrypted key without a passphrase, ValueError for another passphrase or no key."""
    load = load_ssh_private_key if b"OPENSSH PRIVATE KEY" in data else load_pem_private_key
    return load(data, passphrase)


def _opened(path: str, data: bytes):
    passphrase = os.environ.get(PASSPHRASE, "").encode()
    if not passphrase:
        raise InputError(
            f"The key file {path} is encrypted: load it into ssh-agent and leave key_file empty, or set {PASSPHRASE}."
        )
    try:
        return _parsed(data, passphrase)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InputError(
            f"The key file {path} is encrypted, and {PASSPHRASE} does not open it: correct that."
        ) from error


def _what(data: bytes) -> str:
    head = data[:200].decode("latin-1")
    if not head.strip():
        return "is empty: give the private key as key_file"
    return next((said for mark, said in OTHERS.items() if mark in head), "is no private key: give another file")
