#!/usr/bin/env bash
# Runs molecule on test hosts: containers with systemd, sshd and PostgreSQL, made with podman or docker.
#
#   tools/molecule.sh test [-s fleet]           new hosts, all scenarios or one, remove the hosts
#   tools/molecule.sh converge -s fleet         any other command of molecule; the hosts stay
#   tools/molecule.sh login db12 [COMMAND...]   a shell on a host, or one command
#   tools/molecule.sh images                    only build the images
#   tools/molecule.sh clean                     remove hosts and network
#   tools/molecule.sh purge                     remove the images as well
#
# Environment:
#   PGKEEP_MOLECULE_PREFIX   begins the names of containers and network (pgkeep-); another one for a second checkout
#   PGKEEP_MOLECULE_ENGINE   podman or docker, without it whichever is there
#   PGKEEP_MOLECULE_BASE     where base images come from: pull (a registry) or mmdebstrap (the distribution's packages);
#                            without it whichever works
#   PGKEEP_NO_SKIP=1         fail where hosts cannot be run; without it say `NOT RUN` and why, and end with 0
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
cd "$root"
prefix=${PGKEEP_MOLECULE_PREFIX:-pgkeep-}
images=localhost/pgkeep-hosts
label=pgkeep.molecule=$prefix
state=$root/.cache/molecule/${prefix%-}
mounts=/run/pgkeep-molecule # for every prefix the same: podman has to see all its containers
enter=() # command that brings another into the mount namespace with cgroup v2, where one is needed

said=2 # where messages go
say() { printf 'molecule.sh: %s\n' "$*" >&"$said"; }

fail() {
  say "$*"
  exit 1
}

# not_run REASON: this machine has not what it takes
not_run() {
  printf 'NOT RUN: %s\n' "$*"
  [ "${PGKEEP_NO_SKIP:-}" != 1 ] || fail "PGKEEP_NO_SKIP=1: this is a failure, because the hosts have to run here"
  exit 0
}

# The odd form is for bash 3.2, which calls an empty array unset.
run() { ${enter[@]+"${enter[@]}"} "$@"; }

# --- What is here? ---

# capability BIT: this process has it (root of a container may lack some)
capability() {
  local effective
  effective=$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status 2> /dev/null)
  [ -z "$effective" ] || (((0x$effective >> $1) & 1))
}

find_engine() {
  engine=${PGKEEP_MOLECULE_ENGINE:-}
  if [ -z "$engine" ]; then
    if command -v podman > /dev/null; then engine=podman; else engine=docker; fi
  fi
  case $engine in
    podman) connection=containers.podman.podman ;;
    docker) connection=community.docker.docker ;;
    *) fail "PGKEEP_MOLECULE_ENGINE is podman or docker, not $engine" ;;
  esac
  command -v "$engine" > /dev/null || not_run "neither podman nor docker is installed"
}

# cgroup_version: prints 1 or 2, or what the engine says where it does not work
cgroup_version() {
  local format='{{.Host.CgroupsVersion}}'
  if [ "$engine" = docker ]; then format='{{.CgroupVersion}}'; fi
  { run "$engine" info --format "$format" 2>&1 || true; } | tail -n 1 | sed 's/^v//'
}

# systemd needs cgroup v2. Where the machine still has v1, root can mount v2 instead, seen by nobody else: in a mount
# namespace that is kept by a file and needs no process.
enter_cgroup_v2() {
  [ "$engine" = podman ] || not_run "docker runs with cgroup v1 here, and systemd needs v2; podman as root could do it"
  [ "$(id -u)" = 0 ] || not_run "this machine has cgroup v1, and systemd needs v2; only root could mount it"
  grep -qw cgroup2 /proc/filesystems || not_run "this kernel has no cgroup v2, and systemd needs it"
  if ! findmnt "$mounts/cgroup-v2" > /dev/null; then
    mkdir -p "$mounts"
    # The file that keeps the namespace must be on a mount that is not passed on to it.
    findmnt "$mounts" > /dev/null || mount --bind "$mounts" "$mounts" 2> /dev/null \
      || not_run "this machine has cgroup v1, and root may not mount here, so it cannot have the v2 that systemd needs"
    mount --make-private "$mounts"
    touch "$mounts/cgroup-v2"
    unshare --mount="$mounts/cgroup-v2" sh -ec 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup' \
      || not_run "this machine has cgroup v1, and root may not mount v2 in a namespace of its own"
    say "cgroup v1 here: containers run in a mount namespace with v2, kept by $mounts/cgroup-v2"
  fi
  enter=(nsenter --mount="$mounts/cgroup-v2" --wdns="$root")
  # Hosts whose namespace ended, with the machine for example, are still running for podman, and it stumbles over them.
  # Without this file it takes the machine as newly started, and all containers as ended.
  run podman ps --all --quiet > /dev/null 2>&1 || rm -f /run/libpod/alive
}

leave_cgroup_v2() {
  findmnt "$mounts" > /dev/null 2>&1 || return 0
  [ -z "$(run "$engine" ps --all --quiet)" ] || return 0
  if findmnt "$mounts/cgroup-v2" > /dev/null; then umount "$mounts/cgroup-v2"; fi
  umount "$mounts"
  rm -rf "$mounts"
}

look_around() {
  local version
  find_engine
  if [ "$engine" = podman ] && findmnt "$mounts/cgroup-v2" > /dev/null 2>&1; then enter_cgroup_v2; fi
  version=$(cgroup_version)
  case $version in
    2) ;;
    1) enter_cgroup_v2 ;;
    *) not_run "$engine is installed but does not work: $version" ;;
  esac
  if [ "$engine" = podman ] && [ "$(uname -s)" = Linux ] && [ "$(id -u)" != 0 ]; then
    # A distribution's packages have files of many users.
    [ "$(podman unshare awk '{ n += $3 } END { print n + 0 }' /proc/self/uid_map)" -ge 65536 ] \
      || not_run "podman of an ordinary user needs 65536 subordinate users and groups: see subuid(5)"
  fi

  # Drills and sandboxed units make namespaces and mounts, hence the privileges. They end with the container.
  flags=(--privileged --stop-timeout=0)
  build_flags=()
  if [ "$engine" = podman ]; then
    flags+=(--systemd=always --pids-limit=0)
    build_flags+=(--isolation=chroot)
  else
    flags+=(--cgroupns=private --tmpfs=/run --tmpfs=/run/lock --tmpfs=/tmp:exec)
  fi
  # Podman raises limits; without the right to do so (CAP_SYS_RESOURCE, bit 24) it has to keep what there is.
  if [ "$engine" = podman ] && [ "$(id -u)" = 0 ] && ! capability 24; then
    flags+=("--ulimit=nofile=$(ulimit -Hn):$(ulimit -Hn)" "--ulimit=nproc=$(process_limit):$(process_limit)")
  fi
  say "$engine as $(id -un), cgroup v2${enter[*]:+ in a mount namespace of its own}, names begin with $prefix"
}

# Podman lowers the limit of its own processes to this one.
process_limit() {
  local limit
  limit=$(ulimit -Hu)
  if [ "$limit" = unlimited ] || [ "$limit" -gt 32768 ]; then limit=32768; fi
  echo "$limit"
}

# --- Images ---

# The name of an image says what is in it, so that another Containerfile gets another image.
image_tag() { cat molecule/resources/{Containerfile,object_store.sh} | cksum | cut -d ' ' -f 1; }

has_image() { run "$engine" image inspect "$1" > /dev/null 2>&1; }

# base_image SUITE: makes or pulls the image that the others are built from, and prints its name
base_image() {
  local suite=$1 how=${PGKEEP_MOLECULE_BASE:-} name=docker.io/library/debian:$1
  if [ "$how" != mmdebstrap ]; then
    if run "$engine" pull --quiet "$name" > /dev/null 2>&1; then
      say "$suite: base image pulled"
      echo "$name"
      return
    fi
    [ "$how" != pull ] || fail "cannot pull $name"
  fi
  name=$images:base-$suite
  if ! has_image "$name"; then
    say "$suite: no registry answers, base image from the distribution's packages"
    # The archive is never on the disk.
    mmdebstrap --quiet --variant=minbase "$suite" - | run "$engine" import - "$name" > /dev/null
  fi
  echo "$name"
}

# build SUITE TARGET...: builds the stages of the Containerfile that are missing
build() {
  local suite=$1 base='' target name
  shift
  for target in "$@"; do
    name=$images:$target-$suite-$tag
    if has_image "$name"; then continue; fi
    [ -n "$base" ] || base=$(base_image "$suite")
    say "$suite: building $name"
    run "$engine" build --quiet ${build_flags[@]+"${build_flags[@]}"} --build-arg "BASE=$base" --target "$target" \
      --tag "$name" --label "pgkeep.hosts=1" --file molecule/resources/Containerfile molecule/resources
  done
}

# All releases at the same time; what the programs print is kept for the case that one fails.
build_images() {
  local suite one two three failed=() log=$root/.cache/molecule/image
  tag=$(image_tag)
  mkdir -p "${log%/*}"
  exec 3>&2
  said=3
  build bookworm server sudo store > "$log-bookworm.log" 2>&1 &
  one=$!
  build trixie plain two-majors > "$log-trixie.log" 2>&1 &
  two=$!
  build bullseye server > "$log-bullseye.log" 2>&1 &
  three=$!
  wait "$one" || failed+=(bookworm)
  wait "$two" || failed+=(trixie)
  wait "$three" || failed+=(bullseye)
  exec 3>&-
  said=2
  [ "${#failed[@]}" -gt 0 ] || return 0
  for suite in "${failed[@]}"; do cat "$log-$suite.log" >&2; done
  command -v mmdebstrap > /dev/null || not_run "no registry has the base images, and mmdebstrap, which makes them, is not installed"
  fail "there are no images of ${failed[*]}: see above"
}

# --- Hosts ---

hosts() { run "$engine" ps --all --quiet --filter "label=$label" "$@"; }

# Removes the hosts of this prefix, also those of a run that was killed, and what molecule remembers of them.
remove_hosts() {
  local found
  found=$(hosts)
  # Word by word: these are identifiers. Podman sometimes fails to kill what has just ended by itself.
  # shellcheck disable=SC2086
  if [ -n "$found" ]; then
    run "$engine" rm --force --volumes $found > /dev/null 2>&1 || run "$engine" rm --force --volumes $found > /dev/null
  fi
  run "$engine" network rm "${prefix}hosts" > /dev/null 2>&1 || true
  # Names of hosts that were killed with the machine would stay, and the next network's would not be found.
  rm -f "/run/containers/networks/aardvark-dns/${prefix}hosts"
  rm -rf "$state"
}

remove_images() {
  local found
  found=$(run "$engine" images --format '{{.Repository}}:{{.Tag}}' | grep "^$images:" || true)
  # Images that hosts of another prefix use stay.
  # shellcheck disable=SC2086
  if [ -n "$found" ]; then run "$engine" rmi $found > /dev/null || say "some images are in use and stay"; fi
}

# Molecule believes its own notes: without hosts, or with one that does not run, it has to begin anew.
forget_lost_hosts() {
  if [ -z "$(hosts)" ] || [ "$(hosts)" != "$(hosts --filter status=running)" ]; then remove_hosts; fi
}

# --- Molecule ---

prepare_environment() {
  export PATH=$root/.venv/bin:$PATH
  command -v molecule > /dev/null || fail "molecule is not installed: run make venv"
  [ -d .cache/content/ansible_collections/containers/podman ] || fail "the connection plugins are not here: run make content"
  mkdir -p .cache/collections/ansible_collections/pgkeep
  ln -sfn ../../../.. .cache/collections/ansible_collections/pgkeep/backup
  export ANSIBLE_COLLECTIONS_PATH=$root/.cache/collections:$root/.cache/content
  export ANSIBLE_HOME=$root/.cache/ansible
  [ -t 1 ] || export NO_COLOR=1 ANSIBLE_NOCOLOR=1 MOLECULE_COMMAND_BORDERS=false
  # One directory for all scenarios, because they share the hosts.
  export MOLECULE_EPHEMERAL_DIRECTORY=$state
  # Says that the folder is where it shall be; without it molecule recommends another.
  export MOLECULE_GLOB='molecule/*/molecule.yml'
  export PGKEEP_MOLECULE_PREFIX=$prefix PGKEEP_MOLECULE_ENGINE=$engine PGKEEP_MOLECULE_CONNECTION=$connection
  export PGKEEP_MOLECULE_FLAGS="${flags[*]} --label=$label"
  PGKEEP_MOLECULE_IMAGES=$images PGKEEP_MOLECULE_TAG=$(image_tag)
  export PGKEEP_MOLECULE_IMAGES PGKEEP_MOLECULE_TAG
}

# one_at_a_time: two runs with the same prefix would take the hosts from each other
one_at_a_time() {
  command -v flock > /dev/null || return 0
  mkdir -p "${state%/*}"
  exec 9> "$state.lock"
  flock --nonblock 9 || fail "another run uses the hosts $prefix...: wait for it, or set PGKEEP_MOLECULE_PREFIX"
}

# The configuration is named, because molecule looks for it in git repositories only, and tests nothing without it.
# What it starts does not inherit the lock: containers would hold it.
molecule() { run molecule --base-config .config/molecule/config.yml "$@" 9>&-; }

# A function, because bash reads it as a whole: whoever changes this file does not disturb a run.
main() {
  case $prefix in
    *[!a-z0-9-]* | -* | '') fail "PGKEEP_MOLECULE_PREFIX has small letters, digits and hyphens, not $prefix" ;;
  esac
  local command=${1:-} host terminal=()
  [ -n "$command" ] || fail "say what to do: test, converge, verify, login, images, clean, purge ..."
  shift

  case $command in
    clean | purge)
      # Where nothing can run, there is nothing to remove.
      PGKEEP_NO_SKIP=''
      look_around
      one_at_a_time
      remove_hosts
      if [ "$command" = purge ]; then remove_images; fi
      leave_cgroup_v2
      ;;
    images)
      look_around
      build_images
      ;;
    login)
      [ "$#" -gt 0 ] || fail "say which host: tools/molecule.sh login db12"
      look_around
      host=$prefix$1
      shift
      if [ -t 0 ]; then terminal=(--tty); fi
      if [ "$#" = 0 ]; then set -- bash --login; fi
      run "$engine" exec --interactive ${terminal[@]+"${terminal[@]}"} "$host" "$@"
      ;;
    test)
      look_around
      one_at_a_time
      build_images
      prepare_environment
      remove_hosts
      case " $* " in
        '  ') set -- --all --workers 2 --continue-on-failure ;; # workers print only what failed
        *' -s '* | *' --scenario-name'* | *' --all '*) ;;
        *) set -- --all "$@" ;;
      esac
      molecule test "$@"
      ;;
    *)
      look_around
      one_at_a_time
      build_images
      prepare_environment
      forget_lost_hosts
      molecule "$command" "$@"
      ;;
  esac
}

main "$@"
exit
