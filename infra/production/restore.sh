#!/bin/sh
# Put a backup back: restore.sh BACKUP, with the server stopped. All of it or nothing.
set -eu
backup=${1:?"give the backup to restore, such as /var/backups/fabrating/prefect-20260101T030000Z.dump"}
[ -r "$backup" ] || { echo "restore: $backup cannot be read" >&2; exit 1; }
pg_restore --clean --if-exists --no-owner --no-privileges --single-transaction --exit-on-error \
    --dbname="${PGDATABASE:?is in server.env}" "$backup"
