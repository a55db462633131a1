"""Private keys in the forms that clouds and tools write them in."""

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from tasks.errors import InputError
from tasks.hosts.route import PASSPHRASE, load_key

PKCS8 = pytest.mark.xfail(
    strict=True, raises=InputError, reason="Data as people have it: an RSA key in PKCS#8 cannot be read"
)


@pytest.mark.parametrize(
    ("form", "passphrase"),
    [
        (PrivateFormat.TraditionalOpenSSL, ""),
        (PrivateFormat.OpenSSH, "secret"),
        pytest.param(PrivateFormat.PKCS8, "", marks=PKCS8),
        pytest.param(PrivateFormat.PKCS8, "secret", marks=PKCS8),
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
