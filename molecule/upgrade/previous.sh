#!/usr/bin/env bash
# previous.sh HOST: sets a host up as its commit in the file `previous` would have: runs the playbook before/HOST.yml with the
# collection of that commit.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
cd "$here/../.."
host=$1
commit=$(sed -n "s/^$host //p" molecule/upgrade/previous)
place=$PWD/.cache/upgrade/$commit

# The checkout may belong to someone else than who runs the tests.
git() { GIT_TERMINAL_PROMPT=0 command git -c "safe.directory=$PWD" "$@"; }

has_commit() { git cat-file -e "$commit^{commit}" 2> /dev/null; }

if [ ! -d "$place" ]; then
  if ! has_commit && [ "$(git rev-parse --is-shallow-repository 2> /dev/null)" = true ]; then
    timeout 120 git fetch --quiet --unshallow 2> /dev/null || true
  fi
  if ! has_commit; then
    echo "commit $commit, which set up $host before, is not in this checkout: get the history (git fetch --unshallow), or" \
      "leave this scenario out" >&2
    exit 1
  fi
  mkdir -p "${place%/*}"
  new=$(mktemp -d "$place-XXXXXX")
  mkdir -p "$new/ansible_collections/pgkeep/backup"
  git archive "$commit" | tar -x -C "$new/ansible_collections/pgkeep/backup"
  mv -T "$new" "$place" 2> /dev/null || rm -rf "$new" # another run was faster
fi

export ANSIBLE_COLLECTIONS_PATH=$place:$PWD/.cache/content
exec ansible-playbook --inventory=molecule/resources/inventory/hosts.yml "molecule/upgrade/before/$host.yml"
