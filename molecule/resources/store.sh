#!/usr/bin/env bash
# store.sh NAME BUCKET KIND..., with the secret keys of owner and writer on its standard input, a line each: makes an S3
# server that is called NAME, with buckets, and prints its certificate authority.
set -euo pipefail
name=$1 dir=/var/lib/object-store
shift
IFS= read -r owner
IFS= read -r writer

object_store.sh install "$dir" 0.0.0.0:443 "$name"
object_store.sh user "$dir" owner <<< "$owner"
object_store.sh user "$dir" writer <<< "$writer"
while [ "$#" -gt 0 ]; do
  object_store.sh bucket "$dir" "$1" "$2" <<< "$owner"
  shift 2
done
cat "$dir/ca.pem"
