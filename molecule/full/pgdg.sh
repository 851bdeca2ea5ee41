#!/usr/bin/env bash
# pgdg.sh DIRECTORY SUITE: makes a signed repository of packages there, as the PGDG has one, with a package that is nowhere
# else.
set -euo pipefail
directory=$1 suite=$2
work=$(mktemp -d)
export GNUPGHOME=$work/gnupg
trap 'gpgconf --kill all; rm -rf "$work"' EXIT
mkdir -m 700 "$GNUPGHOME"

mkdir -p "$work/package/DEBIAN"
cat > "$work/package/DEBIAN/control" << END
Package: pgkeep-only-here
Version: 1.0
Architecture: all
Maintainer: pgkeep <pgkeep@example.org>
Description: Shows that packages come from this repository
END
gpg --batch --quiet --passphrase '' --quick-generate-key 'PGDG of a test' default default never

rm -rf "$directory"
architecture=$(dpkg --print-architecture)
packages=dists/$suite/main/binary-$architecture
mkdir -p "$directory/pool" "$directory/$packages"
cd "$directory"
dpkg-deb --build --root-owner-group "$work/package" pool > /dev/null
apt-ftparchive packages pool > "$packages/Packages"
apt-ftparchive -o "APT::FTPArchive::Release::Suite=$suite" -o "APT::FTPArchive::Release::Components=main" \
  -o "APT::FTPArchive::Release::Architectures=$architecture" release "dists/$suite" > "$work/Release"
gpg --armor --export > key.asc
# The signature comes last: with it, the repository is complete.
gpg --batch --quiet --clear-sign --output "dists/$suite/InRelease" "$work/Release"
