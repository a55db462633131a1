"""Private keys in the forms that clouds and tools write them in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks.errors import InputError
from tasks.hosts.keys import PASSPHRASE, load_key


@pytest.mark.parametrize(
    ("form", "passphrase"),
    [
        (PrivateFormat.TraditionalOpenSSL, ""),
        (PrivateFormat.TraditionalOpenSSL, "secret"),
        (PrivateFormat.OpenSSH, "secret"),
        (PrivateFormat.PKCS8, ""),
        (PrivateFormat.PKCS8, "secret"),
    ],
)
def test_an_rsa_key_is_loaded_in_any_form(
    form: PrivateFormat, passphrase: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    encryption = BestAvailableEncryption(passphrase.encode()) if passphrase else NoEncryption()
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, form, encryption))
    monkeypatch.setenv(PASSPHRASE, passphrase)
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert load_key(str(tmp_path / "key")).get_base64() == public.split()[1]


@pytest.mark.parametrize("make", [ed25519.Ed25519PrivateKey.generate, lambda: ec.generate_private_key(ec.SECP384R1())])
def test_a_plain_key_of_any_kind_is_loaded_although_a_passphrase_is_set(
    make: Callable[[], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = make()
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    monkeypatch.setenv(PASSPHRASE, "of another key")
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    assert load_key(str(tmp_path / "key")).get_base64() == public.split()[1]


def wrong_files() -> dict[str, bytes]:
    key, old = ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048)
    public = key.public_key()
    return {
        "is a public key: give the private one": public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH),
        "is a public key: .* without": public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "is a key of PuTTY: convert it with puttygen": b"PuTTY-User-Key-File-3: ssh-ed25519\n",
        "is a certificate": b"ssh-ed25519-cert-v01@openssh.com AAAA me",
        "is empty": b"\n",
        "is no private key": b"Dear customer,",
        "that is damaged": key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())[:200],
        "is neither RSA, ECDSA nor Ed25519": old.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "is encrypted, and FABRATING_SSH_PASSPHRASE does not open it": key.private_bytes(
            Encoding.PEM, PrivateFormat.OpenSSH, BestAvailableEncryption(b"secret")
        ),
    }


def test_what_is_no_key_for_us_is_called_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PASSPHRASE, "another")
    for said, data in wrong_files().items():
        (tmp_path / "key").write_bytes(data)
        with pytest.raises(InputError, match=f"The key file .*key {said}"):
            load_key(str(tmp_path / "key"))
    with pytest.raises(InputError, match="does not exist: give the private key as key_file"):
        load_key(str(tmp_path / "nothing"))
