#!/usr/bin/env bash
# Puts the Ansible collections that development needs into .cache/content. They are taken out of the `ansible` package
# of the Python package index, so no Galaxy server is needed. Once there, nothing is done. `make content` calls it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

python=.venv/bin/python
# The last two are for the hosts of molecule: how Ansible reaches a container.
collections=(community/postgresql containers/podman community/docker)

# One release for every Python: its collections work with both versions of ansible-core in requirements/dev.txt.
version=14.5.0
wanted="ansible $version: ${collections[*]}"
stamp=.cache/content/contents
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then exit 0; fi

mkdir -p .cache
download=$(mktemp -d .cache/content-XXXXXX)
trap 'rm -rf "$download"' EXIT
"$python" -m pip download --quiet --quiet --disable-pip-version-check --no-deps --only-binary :all: --python-version 3.13 --dest "$download" "ansible==$version"
"$python" - "$download"/ansible-*.whl "${collections[@]}" << 'P'
import sys
import zipfile
from pathlib import Path

wheel, *collections = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive:
    for collection in collections:
        start = f"ansible_collections/{collection}/"
        members = [name for name in archive.namelist() if name.startswith(start)]
        if not members:
            sys.exit(f"{wheel} has no {collection}")
        archive.extractall(Path(wheel).with_name("content"), members)
P
echo "$wanted" > "$download/content/contents"
rm -rf .cache/content
mv "$download/content" .cache/content
