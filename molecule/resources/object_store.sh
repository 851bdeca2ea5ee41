#!/usr/bin/env bash
# An S3 server for tests: Ceph's object gateway, on one monitor and one storage daemon that has everything in memory, with
# TLS and a certificate authority of its own. Packages: ceph-mon, ceph-osd, curl, openssl, radosgw.
#
#   object_store.sh run DIR ADDRESS:PORT MONITOR_PORT [NAME...]
#       Runs it until SIGTERM. A new DIR is made; after SIGTERM the next run has what this one stored. The certificate is for
#       this machine and the NAMEs, DIR/ca.pem is for the clients. Prints `ready`.
#   object_store.sh install DIR ADDRESS:PORT [NAME...]
#       The same as a service of systemd, object-store.
#   object_store.sh user DIR NAME
#       A user. The name is the access key, and the secret key is on standard input.
#   object_store.sh bucket DIR NAME KIND
#       A bucket of the user `owner`, whose secret key is on standard input. The user `writer` may put, read and list there,
#       not delete. KIND is plain, versioned, or locked: with versions that can be locked.
#   object_store.sh quota DIR NAME BYTES
#       A bucket takes no more than that; -1 is no limit.
set -euo pipefail

usage() {
  sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
  exit 2
}

# --- Set-up; the working directory is DIR ---

make_certificate() {
  local name names='subjectAltName=IP:127.0.0.1,DNS:localhost' key=(-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes)
  for name in "$@"; do names+=",DNS:$name"; done
  printf '%s\n' "$names" basicConstraints=critical,CA:FALSE authorityKeyIdentifier=keyid extendedKeyUsage=serverAuth > server.ext
  openssl req -x509 "${key[@]}" -subj '/CN=authority of the object store' -days 3650 -keyout ca.key -out ca.pem
  openssl req "${key[@]}" -subj '/CN=object store' -keyout server.key -out server.csr
  openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 3650 -extfile server.ext -out server.pem
}

# Without authentication (auth) whoever reaches the loopback address may do everything in the cluster: only for tests. With
# these intervals a start takes a second; usually each pool alone does. The class dir of Debian 13 is relative to /.
make_configuration() {
  local endpoint=$1 monitor_port=$2
  cat > ceph.conf << END
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = v2:127.0.0.1:$monitor_port
public addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
ms mon client mode = crc
run dir = $PWD
crash dir = $PWD
log file = $PWD/\$type.log
admin socket =
mon data = $PWD/mon
mon data avail warn = 0
mon data avail crit = 0
mon allow pool size one = true
paxos propose interval = 0.02
paxos min wait = 0.01
osd data = $PWD/osd
osd objectstore = memstore
osd class dir = /$(ceph-conf --conf /dev/null --name osd.0 --show-config-value osd_class_dir)
osd fast shutdown = false
objecter tick interval = 0.2
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
memstore device bytes = 8589934592
rgw frontends = beast ssl_endpoint=$endpoint ssl_certificate=$PWD/server.pem ssl_private_key=$PWD/server.key
rgw thread pool size = 16
rgw bucket quota ttl = 0
END
}

# --- Running ---

daemons=() # their process ids, in the order of their start

# start PROGRAM ARGUMENT...: a daemon, which ends with this script
start() {
  setpriv --pdeathsig=KILL "$@" -f < /dev/null >> "$1.out" 2>&1 &
  daemons+=("$!")
}

# The storage daemon writes down what it has, as long as the monitor is there to let it go. The gateway keeps nothing, and
# would wait for idle connections.
stop() {
  trap '' TERM INT
  local i
  [ -z "${daemons[2]:-}" ] || kill -KILL "${daemons[2]}" 2> /dev/null || true
  for ((i = ${#daemons[@]} - 1; i >= 0; i--)); do
    kill "${daemons[i]}" 2> /dev/null || true
    wait "${daemons[i]}" 2> /dev/null || true
  done
}

fail() {
  echo "a daemon of the object store has ended: see *.log and *.out in $PWD" >&2
  exit 1
}

run() {
  [ "$#" -ge 2 ] || usage
  local endpoint=$1 monitor_port=$2 osd
  shift 2
  trap 'stop; exit 0' TERM INT
  trap stop EXIT
  if [ ! -e ceph.conf ]; then
    make_certificate "$@" > openssl.out 2>&1
    mkdir mon osd
    make_configuration "$endpoint" "$monitor_port"
    monmaptool --create --fsid "$(ceph-conf fsid)" --addv a "v2:127.0.0.1:$monitor_port" monmap > /dev/null
    ceph-mon --mkfs --id a --monmap monmap
  fi
  start ceph-mon --id a
  if [ ! -e osd/ready ]; then
    osd=$(cat /proc/sys/kernel/random/uuid)
    ceph osd new "$osd" 0 > /dev/null
    ceph-osd --mkfs --id 0 --osd-uuid "$osd" 2>> ceph-osd.out
  fi
  start ceph-osd --id 0
  start radosgw --conf "$CEPH_CONF" --name client.rgw
  until curl --silent --output /dev/null --cacert ca.pem "https://127.0.0.1:${endpoint##*:}"; do
    [ "$(jobs -pr | wc -l)" = "${#daemons[@]}" ] || fail
    sleep 0.1
  done
  echo ready
  if [ -n "${NOTIFY_SOCKET:-}" ]; then systemd-notify --ready; fi
  wait -n || true
  fail
}

install_service() {
  local program=$1 endpoint=$2
  shift 2
  cat > /etc/systemd/system/object-store.service << END
[Unit]
Description=S3 server for tests

[Service]
Type=notify
NotifyAccess=all
ExecStart=$program run $PWD $endpoint 3300 $*
KillMode=mixed

[Install]
WantedBy=multi-user.target
END
  systemctl daemon-reload
  systemctl enable --quiet --now object-store
}

# --- Users and buckets ---

make_user() {
  local name=$1 secret
  IFS= read -r secret
  radosgw-admin user info --uid "$name" > /dev/null 2>&1 \
    || radosgw-admin user create --uid "$name" --display-name "$name" --access-key "$name" --secret-key "$secret" > /dev/null
}

# put PATH CONTENT [HEADER]: a request of the user owner
put() {
  local path=$1 content=$2 port digest headers=()
  port=$(sed -n 's/^rgw frontends = .* ssl_endpoint=[^ ]*:\([0-9]*\) .*/\1/p' ceph.conf)
  digest=$(printf %s "$content" | sha256sum | cut -d ' ' -f 1)
  [ "$#" = 2 ] || headers=(--header "$3")
  curl --silent --show-error --fail-with-body --cacert ca.pem --aws-sigv4 aws:amz:us-east-1:s3 --request PUT \
    --header "x-amz-content-sha256: $digest" "${headers[@]}" --data-binary "$content" \
    --config <(echo "user = \"owner:$secret\"") "https://127.0.0.1:$port/$path"
}

# What writer puts is writer's own, so owner is allowed to read it, too, as in a store where both are of one account.
policy() {
  cat << END
{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/owner"]}, "Action": "s3:*",
    "Resource": ["arn:aws:s3:::$1", "arn:aws:s3:::$1/*"]},
  {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/writer"]}, "Resource": "arn:aws:s3:::$1", "Action": [
    "s3:GetBucketLocation", "s3:GetBucketObjectLockConfiguration", "s3:GetBucketVersioning", "s3:ListBucket",
    "s3:ListBucketMultipartUploads", "s3:ListBucketVersions"]},
  {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/writer"]}, "Resource": "arn:aws:s3:::$1/*", "Action": [
    "s3:AbortMultipartUpload", "s3:GetObject", "s3:GetObjectRetention", "s3:GetObjectVersion",
    "s3:ListMultipartUploadParts", "s3:PutObject"]}]}
END
}

make_bucket() {
  local name=$1 kind=$2 secret
  IFS= read -r secret
  case $kind in
    plain) put "$name" '' ;;
    versioned)
      put "$name" ''
      put "$name?versioning=" '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>'
      ;;
    locked) put "$name" '' 'x-amz-bucket-object-lock-enabled: true' ;;
    *) usage ;;
  esac
  put "$name?policy=" "$(policy "$name")"
}

set_quota() {
  radosgw-admin quota set --quota-scope=bucket --bucket="$1" --max-size="$2"
  radosgw-admin quota enable --quota-scope=bucket --bucket="$1"
}

main() {
  [ "$#" -ge 3 ] || usage
  local command=$1 dir=$2 self
  self=$(realpath "$0")
  shift 2
  mkdir -p "$dir"
  cd "$dir"
  umask 022
  PATH=$PATH:/usr/sbin:/sbin
  export CEPH_CONF=$PWD/ceph.conf
  case $command in
    run) run "$@" ;;
    install) install_service "$self" "$@" ;;
    user) make_user "$1" ;;
    bucket) [ "$#" = 2 ] && make_bucket "$@" ;;
    quota) [ "$#" = 2 ] && set_quota "$@" ;;
    *) usage ;;
  esac
}

main "$@"
