#!/usr/bin/env bash
# Installs what the tests need from the distribution (Debian, Ubuntu). Given root, it installs what is missing; given an
# ordinary user, it says what is missing. Nothing is touched, and no network is used, where everything is there.
set -euo pipefail

python=${PYTHON:-python3}
PATH=$PATH:/usr/sbin:/sbin # which an ordinary user may not have
missing=()

# need PACKAGE COMMAND...: the package is missing where COMMAND fails
need() {
  local package=$1
  shift
  "$@" > /dev/null 2>&1 || missing+=("$package")
}

has_server() { compgen -G '/usr/lib/postgresql/*/bin/initdb'; }

# Debian keeps what `python -m venv` needs in a package of its own.
has_venv() { ! command -v "$python" || "$python" -c 'import ensurepip'; }

has_libpq() { compgen -G '/usr/lib/*/libpq.so.5'; }

# Since 3.4, the rrsync of rsync can refuse to overwrite.
has_rrsync() { grep no-overwrite "$(command -v rrsync)"; }

has_network() { [ -x "/usr/lib/podman/$1" ]; }

# Hosts in containers: with podman, which without mmdebstrap needs a registry of images, or with docker where it runs.
need_hosts() {
  if command -v docker && docker info; then return; fi > /dev/null 2>&1
  need aardvark-dns has_network aardvark-dns
  need crun command -v crun
  need iptables command -v iptables
  need mmdebstrap command -v mmdebstrap
  need netavark has_network netavark
  need nftables command -v nft
  need podman command -v podman
}

need age command -v age
need bubblewrap command -v bwrap
need postgresql has_server
need libpq5 has_libpq
need ceph-mon command -v ceph-mon
need ceph-osd command -v ceph-osd
need curl command -v curl
need faketime command -v faketime
need gnupg command -v gpg
need gzip command -v gzip
need lz4 command -v lz4
need openssh-client command -v ssh
need openssh-server command -v sshd
need openssl command -v openssl
need radosgw command -v radosgw
need rclone command -v rclone
need rsync has_rrsync
need strace command -v strace
need systemd command -v systemd-analyze
need "$(basename "$python")-venv" has_venv
need util-linux command -v setpriv
need zstd command -v zstd
need_hosts

[ "${#missing[@]}" -gt 0 ] || exit 0

if [ "$(id -u)" != 0 ]; then
  echo "Not installed: ${missing[*]}. Tests that need one of these are skipped. To install them, as root:"
  echo "  apt-get install --no-install-recommends ${missing[*]}"
  exit 0
fi

if ! command -v apt-get > /dev/null; then
  echo "Not installed, and there is no apt-get: ${missing[*]}. Tests that need one of these are skipped."
  exit 0
fi

# The tests start servers of their own. Without this the packages would make some too, and start them.
configuration=/etc/postgresql-common/createcluster.conf
if [ ! -e "$configuration" ]; then
  mkdir -p "$(dirname "$configuration")"
  echo 'create_main_cluster = false' > "$configuration"
fi
case " ${missing[*]} " in
  *' openssh-server '*) mkdir -p /etc/ssh && touch /etc/ssh/sshd_not_to_be_run ;;
esac

export DEBIAN_FRONTEND=noninteractive
echo "Installing ${missing[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } > "$log" 2>&1 < /dev/null; then
  cat "$log" >&2
  echo "apt-get failed: see above" >&2
  exit 1
fi
