"""A throw-away PostgreSQL cluster: initialised in a folder, on loopback, for as long as a benchmark takes.

PostgreSQL refuses to run as root; then it runs as the account `postgres` that its package makes.
"""

import os
import pwd
import shutil
import subprocess
from pathlib import Path
from typing import Any

from infra.local import ports
from tasks.errors import InputError

ACCOUNT = "postgres"
MEMORY = ("-c", "shared_buffers=64MB", "-c", "max_connections=200")


def programs() -> Path:
    """The folder with initdb, pg_ctl and postgres. Raises InputError when PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    if (anywhere := shutil.which("pg_ctl")) is not None:
        return Path(anywhere).parent
    raise InputError("PostgreSQL is not installed: apt install postgresql.")


class Postgres:
    """One cluster. `url`: what PREFECT_SERVER_DATABASE_CONNECTION_URL has to be."""

    def __init__(self, folder: Path):
        self.folder, self.port = folder, ports.choose(0)
        self._bin = programs()
        self.url = f"postgresql+asyncpg://{ACCOUNT}@{ports.HOST}:{self.port}/postgres"

    def create(self) -> None:
        """Make the cluster's files. The folder's parents must let its account through."""
        self.folder.mkdir(parents=True)
        if self._other:
            shutil.chown(self.folder, ACCOUNT, ACCOUNT)
        self._run("initdb", "-D", str(self.folder), "-U", ACCOUNT, "-A", "trust", "--no-sync", "-E", "UTF8")

    def start(self) -> None:
        """Start the server and wait until it answers; it has no Unix socket."""
        options = f"-p {self.port} -c listen_addresses={ports.HOST} -c unix_socket_directories='' {' '.join(MEMORY)}"
        self._run("pg_ctl", "-D", str(self.folder), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as an administrator in a hurry would: connections are cut."""
        if (self.folder / "postmaster.pid").exists():
            self._run("pg_ctl", "-D", str(self.folder), "-m", "fast", "-w", "stop")

    def size(self) -> int:
        """Bytes of the database, by PostgreSQL's own count."""
        return int(self.ask("select pg_database_size('postgres')"))

    def age(self, hours: float) -> None:
        """Move every moment that its tables know back by so many hours, as if it had been off for as long."""
        columns = self.ask(
            "select table_name, column_name from information_schema.columns join information_schema.tables using (table_schema, table_name) "
            "where table_schema = 'public' and table_type = 'BASE TABLE' and data_type like 'timestamp%'"
        )
        tables: dict[str, list[str]] = {}
        for table, column in (line.split("|") for line in columns.splitlines()):
            tables.setdefault(table, []).append(f'"{column}" = "{column}" - interval \'{hours} hours\'')
        for table, changes in tables.items():
            self.ask(f'update "{table}" set {", ".join(changes)}')

    def ask(self, query: str) -> str:
        """The answer to a query as psql prints it, without headers."""
        command = ("psql", "-h", ports.HOST, "-p", str(self.port), "-U", ACCOUNT, "-Atc", query)
        return self._run(*command).strip()

    @property
    def _other(self) -> bool:
        """Whether it must run under another account than this process."""
        return os.geteuid() == 0

    def _run(self, program: str, *arguments: str) -> str:
        account: dict[str, Any] = {}
        if self._other:
            entry = pwd.getpwnam(ACCOUNT)
            account = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
        command = [str(self._bin / program), *arguments]
        # pg_ctl's server would keep a pipe open, and with it this call: a file does not.
        with (self.folder.parent / f"{program}.out").open("w+") as output:
            done = subprocess.run(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd="/", check=False, **account
            )
            output.seek(0)
            said = output.read()
        if done.returncode:
            raise RuntimeError(f"{program} ended with status {done.returncode}: {said.strip()[-400:]}")
        return said
