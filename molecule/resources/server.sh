#!/usr/bin/env bash
# server.sh VERSION NAME PORT REMOTE, with SQL on its standard input: makes a cluster as its package would, and executes
# the SQL. With REMOTE true, its server listens on the network and lets users with a password in.
set -euo pipefail
version=$1 name=$2 port=$3 remote=$4
configuration=/etc/postgresql/$version/$name

if [ ! -d "$configuration" ]; then
  pg_createcluster --locale C.UTF-8 --port "$port" "$version" "$name" -- --no-sync
  if [ "$remote" = true ]; then
    echo "listen_addresses = '*'" > "$configuration/conf.d/network.conf"
    echo 'host all,replication all samenet scram-sha-256' >> "$configuration/pg_hba.conf"
  fi
fi
systemctl start "postgresql@$version-$name"
cd /
runuser --user=postgres -- psql --no-psqlrc --quiet --tuples-only --set=ON_ERROR_STOP=1 --port="$port" --file=-
