#!/bin/sh
# One backup of the server's state into FABRATING_BACKUPS, of which the newest FABRATING_BACKUPS_KEPT (14) are kept.
# PGHOST, PGUSER, PGDATABASE and PGPASSWORD say which database. Artifacts (pools, arms, runs) are not in it: they lie
# under their root URL.
set -eu
umask 077
folder=${FABRATING_BACKUPS:-/var/backups/fabrating}
kept=${FABRATING_BACKUPS_KEPT:-14}
mkdir -p "$folder"
name=prefect-$(date -u +%Y%m%dT%H%M%SZ).dump
part=$folder/.$name.part
trap 'rm -f "$part"' EXIT
pg_dump --format=custom --no-owner --no-privileges --file="$part"
pg_restore --list "$part" >/dev/null # one that cannot be read is none
sync "$part" 2>/dev/null || sync
mv "$part" "$folder/$name"
printf '%s\n' "$folder/$name"
cd "$folder"
# names sort by time, and hold no spaces
for old in $(ls -1 prefect-*.dump | sort -r | tail -n +$((kept + 1))); do
    rm -f "$old"
done
