#!/usr/bin/env bash
# Puts the Ansible collections that development needs into .cache/content. They are taken out of the `ansible` package
# of the Python package index, so no Galaxy server is needed. Once there, nothing is done. `make content` calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
collections=(community/postgresql)

# The release that belongs to the ansible-core of requirements/dev.txt.
version=$("$python" -c 'import sys; print("12.3.0" if sys.version_info < (3, 12) else "14.5.0")')
wanted="ansible $version: ${collections[*]}"
stamp=.cache/content/contents
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

rm -rf .cache/content
mkdir -p .cache/content
download=$(mktemp -d)
trap 'rm -rf "$download"' EXIT
"$python" -m pip download --quiet --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$download" "ansible==$version"
"$python" - "$download"/ansible-*.whl "${collections[@]}" << 'P'
import sys
import zipfile

wheel, *collections = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for collection in collections:
        start = f"ansible_collections/{collection}/"
        members = [name for name in archive.namelist() if name.startswith(start)]
        if not members:
            sys.exit(f"{wheel} has no {collection}")
        archive.extractall(".cache/content", members)
P
echo "$wanted" > "$stamp"
