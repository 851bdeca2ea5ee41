#!/usr/bin/env bash
# Runs ansible-test on a checkout at any path, on every supported Python of this machine.
#
#   tools/ansible-test.sh sanity
#   tools/ansible-test.sh sanity --test validate-modules --python 3.11
#
# Expects ansible-test in PATH (make puts .venv/bin there). Its environments are kept in ~/.ansible/test for next time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
tree=$root/.cache/ansible-test
copy=$tree/ansible_collections/pgkeep/backup
cache=${HOME:?has to name a directory in which ansible-test may keep its environments}/.ansible/test/cache

fail() {
  echo "tools/ansible-test.sh: $1" >&2
  exit 1
}

# ansible-test wants to be in .../ansible_collections/NAMESPACE/NAME and follows no symbolic link there, so it gets a
# copy of the files that git knows, and of new ones. Without a .git of its own, ansible-test would ask the outer
# repository, in which the copy is ignored, and skip everything.
copy_collection() {
  rm -rf "$copy"
  mkdir -p "$copy"
  git -c safe.directory="$root" -C "$root" ls-files -z --cached --others --exclude-standard --deduplicate > "$tree/files" ||
    fail "a git checkout is needed"
  while IFS= read -r -d '' file; do
    if [ -e "$root/$file" ]; then printf '%s\0' "$file"; fi
  done < "$tree/files" | tar -C "$root" --null --files-from=- -cf - | tar -C "$copy" -xf -
  git -C "$copy" init --quiet --initial-branch=main
}

# ansible-test starts its environments with a pip installer that it downloads from a host of its own. This one takes
# the interpreter's own pip instead, so that the package index is all that is needed.
provide_pip_installer() {
  local name
  name=$(python - << 'P'
import pathlib
import re

import ansible_test

text = (pathlib.Path(ansible_test.__file__).parent / "_internal/python_requirements.py").read_text()
print("get_pip_{}.py".format(re.search(r"pip='([0-9.]+)'", text).group(1).replace(".", "_")))
P
  )
  mkdir -p "$cache" 2> /dev/null && [ -w "$cache" ] ||
    fail "cannot write to $cache: set HOME to a directory in which ansible-test may keep its environments"
  if [ -e "$cache/$name" ]; then return; fi
  cat > "$cache/$name.new" << 'P'
import subprocess
import sys

if __name__ == "__main__":
    # In a child process, because ensurepip switches pip's configuration off in its own environment.
    subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
    arguments = [each for each in sys.argv[1:] if each not in ("--no-setuptools", "--no-wheel")]
    sys.exit(subprocess.call([sys.executable, "-m", "pip", "install", "--quiet"] + arguments))
P
  mv "$cache/$name.new" "$cache/$name"
}

# pyenv's shims need a variable that ansible-test takes away; the interpreters behind them do not.
find_interpreters() {
  local bin found
  found=$(dirname "$(command -v ansible-test)")
  for bin in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin; do
    if [ -x "$bin/python3" ]; then found+=:$bin; fi
  done
  PATH=$found:$PATH
}

command -v ansible-test > /dev/null || fail "ansible-test is not in PATH: use make sanity"
provide_pip_installer
copy_collection
find_interpreters
unset ANSIBLE_HOME ANSIBLE_COLLECTIONS_PATH PYTHON
cd "$copy"

# --requirements lets each sanity test have its own cached environment. For other commands it would install into the
# interpreters themselves, so those get --venv.
case ${1:?the command of ansible-test is missing} in
  sanity) set -- "$@" --requirements ;;
  units | integration) set -- "$@" --venv ;;
esac
ansible-test "$@" 2>&1 | tee "$tree/log"

# ansible-test calls it a success when there was nothing to test.
if grep -q 'All targets skipped' "$tree/log"; then fail "nothing was tested"; fi
