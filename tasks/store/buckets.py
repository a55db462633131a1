"""Buckets of Amazon S3 (and of services that speak its protocol) and of Google Cloud Storage.

S3: AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), else the profile AWS_PROFILE of ~/.aws/credentials and
~/.aws/config, else the role of the machine. AWS_REGION, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL as of Amazon's own tools;
AWS_SKIP_SIGNATURE=true for public buckets. https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html

Google: GOOGLE_APPLICATION_CREDENTIALS, else `gcloud auth application-default login`, else the machine's service account;
GOOGLE_SKIP_SIGNATURE=true for public buckets, STORAGE_EMULATOR_HOST for an emulator.
"""

import configparser
import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING, cast

from obstore.store import GCSStore, ObjectStore, S3Store

from tasks.errors import InputError
from tasks.store.blobs import CLIENT
from tasks.store.reach import require_host
from tasks.store.urls import Location

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig, S3Config

KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
    "region": "region",
    "endpoint_url": "endpoint",
}
"""Settings of a profile, and what obstore calls them."""
AMAZON = (
    "AWS_SKIP_SIGNATURE",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
GOOGLE = (
    *(
        "GOOGLE_SKIP_SIGNATURE",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_SERVICE_ACCOUNT",
        "GOOGLE_SERVICE_ACCOUNT_PATH",
    ),
    *("GOOGLE_SERVICE_ACCOUNT_KEY", "GOOGLE_BEARER_TOKEN"),
)
"""Variables by which a store is signed in to, or is not asked to be."""
GCLOUD = "~/.config/gcloud/application_default_credentials.json"
METADATA, METADATA_SECONDS = ("169.254.169.254", 80), 2.0
"""Where a machine in either cloud learns its role."""


def s3_settings() -> dict[str, str]:
    """Credential, region and endpoint, in the names that obstore uses; what is lacking comes from the role of the machine."""
    profile, given = _profile(), {name: os.environ.get(name.upper(), "") for name in KEYS}
    if given["aws_access_key_id"]:  # a key belongs to its secret and its token
        profile = {name: value for name, value in profile.items() if not name.startswith("aws_")}
    given["region"] = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "")
    given["endpoint_url"] = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
    return {ours: value for name, ours in KEYS.items() if (value := given[name] or profile.get(name, ""))}


def open_s3(place: Location, retries: "RetryConfig") -> ObjectStore:
    """The bucket that an s3:// URL names."""
    settings = s3_settings()
    if "access_key_id" not in settings and not any(map(os.environ.get, AMAZON)):
        _require_role(
            place.url, "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket"
        )
    client: ClientConfig = {**CLIENT}
    if endpoint := settings.get("endpoint"):
        require_host(place.url, endpoint)
        client["allow_http"] = endpoint.startswith("http://")
    return S3Store(
        place.container,
        prefix=place.folder or None,
        client_options=client,
        retry_config=retries,
        config=cast("S3Config", settings),
    )


def open_google(place: Location, retries: "RetryConfig") -> ObjectStore:
    """The bucket that a gs:// URL names."""
    settings: dict[str, str] = {}
    client: ClientConfig = {**CLIENT}
    if emulator := os.environ.get("STORAGE_EMULATOR_HOST"):
        address = emulator if "://" in emulator else f"http://{emulator}"
        require_host(place.url, address)
        client["allow_http"] = address.startswith("http://")
        settings = {"base_url": address.rstrip("/"), "bearer_token": "none"}  # without one, the client asks for one
    elif not any(map(os.environ.get, GOOGLE)) and not Path(GCLOUD).expanduser().is_file():
        _require_role(
            place.url,
            "run gcloud auth application-default login, or set GOOGLE_SKIP_SIGNATURE=true for a public bucket",
        )
    return GCSStore(
        place.container,
        prefix=place.folder or None,
        client_options=client,
        retry_config=retries,
        config=cast("GCSConfig", settings),
    )


def _require_role(url: str, remedy: str) -> None:
    """Raises InputError where there is neither a credential nor a machine of the cloud: the client would ask for one for minutes."""
    try:
        socket.create_connection(METADATA, METADATA_SECONDS).close()
    except OSError as error:
        raise InputError(f"{url} needs a credential: {remedy}.") from error


def _profile() -> dict[str, str]:
    """What Amazon's files say of the profile that is used."""
    name = os.environ.get("AWS_PROFILE") or "default"
    found: dict[str, str] = {}
    for variable, file in (("AWS_CONFIG_FILE", "config"), ("AWS_SHARED_CREDENTIALS_FILE", "credentials")):
        parser = configparser.ConfigParser(interpolation=None)
        path = Path(os.environ.get(variable) or f"~/.aws/{file}").expanduser()
        try:
            parser.read(path)
        except (configparser.Error, UnicodeDecodeError):  # whose words repeat the line
            raise InputError(f"{path} is no profile file of Amazon's: run `aws configure` again.") from None
        for section in (name, f"profile {name}"):
            if parser.has_section(section):
                found |= parser[section]
    return found
