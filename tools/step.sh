#!/usr/bin/env bash
# Given a heading and a command, runs the command between the heading and its duration, and ends as the command does.
set -uo pipefail
heading=$1
shift

printf '\n=== %s\n' "$heading"
SECONDS=0
"$@"
status=$?
if [ "$status" = 0 ]; then
  printf '=== %s: passed in %d s\n' "$heading" "$SECONDS"
else
  printf '=== %s: FAILED after %d s\n' "$heading" "$SECONDS"
fi
exit "$status"
