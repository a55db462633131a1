"""A SAS token of the emulator's account, as the portal makes one."""

from datetime import UTC, datetime, timedelta

from azure.storage.blob import AccountSasPermissions, ResourceTypes, generate_account_sas

from infra.local.azurite import ACCOUNT, PUBLIC_KEY


def account_signature() -> str:
    everything = ResourceTypes(service=True, container=True, object=True)
    end = datetime.now(UTC) + timedelta(hours=1)
    return generate_account_sas(ACCOUNT, PUBLIC_KEY, everything, AccountSasPermissions(read=True, list=True), end)
