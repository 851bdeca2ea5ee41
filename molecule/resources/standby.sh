#!/usr/bin/env bash
# standby.sh PRIMARY NAME, with the password of replicator on its standard input: makes a streaming standby of the only
# cluster of a host.
set -euo pipefail
primary=$1 name=$2
data=/var/lib/postgresql/15/main

umask 077
echo "$primary:*:*:replicator:$(cat)" > ~postgres/.pgpass
chown postgres: ~postgres/.pgpass
umask 022

pg_createcluster 15 main -- --no-sync # its data goes, its configuration stays
find "$data" -mindepth 1 -delete
cd /
runuser --user=postgres -- pg_basebackup --host="$primary" --username=replicator --pgdata="$data" --write-recovery-conf \
  --create-slot --slot="$name" --checkpoint=fast
printf '%s\n' "cluster_name = '$name'" 'hot_standby = on' > /etc/postgresql/15/main/conf.d/standby.conf
systemctl start postgresql@15-main
