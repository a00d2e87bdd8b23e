#!/usr/bin/env bash
# Provides libvirt with a separate storage pool: the libvirt of the system, or where none runs one that `up` starts and `down` stops.
# Usage: libvirt.sh up|down NAME DIRECTORY [FILE...]. NAME is the pool's, DIRECTORY keeps what `down` has to know, the files are copied into the pool.
# `up` prints the pool's directory. `down` removes everything of that name, also what a crash has left.
set -euo pipefail
action=$1 name=$2 directory=$3
shift 3
export LIBVIRT_DEFAULT_URI=qemu:///system LC_ALL=C
pool=/var/lib/libvirt/images/$name

answers() { virsh --quiet version >/dev/null 2>&1; }
running() { [ "$(cat "/proc/$(cat "$directory/$1.pid" 2>/dev/null || echo none)/comm" 2>/dev/null)" = "$1" ]; }
wait_for() { for _ in $(seq 100); do "$@" && return; sleep 0.2; done; return 1; }
gone() { ! running "$1"; }

# QEMU runs as root: a user who may not open /dev/kvm has other capabilities than those that libvirtd has cached, and libvirtd would probe them
# again at every step, for seconds.
daemon() {
  printf 'user = "root"\ngroup = "root"\n' >"$directory/qemu.conf"
  # shellcheck disable=SC2016  # The inner shell expands them.
  unshare --mount sh -c 'mount --bind "$1/qemu.conf" /etc/libvirt/qemu.conf && exec "$2" --daemon --pid-file "$1/$2.pid"' - "$directory" "$1"
}

up() {
  mkdir -p "$directory"
  if ! answers; then
    [ "$(id -u)" = 0 ] || { echo "No libvirt answers at $LIBVIRT_DEFAULT_URI. Start it (systemctl start libvirtd), or run this as root." >&2; exit 1; }
    for daemon in virtlogd libvirtd; do daemon "$daemon"; done
    wait_for answers || { echo "libvirtd was started and does not answer: run 'libvirtd --verbose' to see why." >&2; exit 1; }
  fi
  forget
  virsh --quiet pool-define-as "$name" dir --target "$pool"
  virsh --quiet pool-build "$name"
  virsh --quiet pool-start "$name"
  for file in "$@"; do
    virsh --quiet vol-create-as "$name" "${file##*/}" "$(stat --format %s "$file")"
    virsh --quiet vol-upload --pool "$name" "${file##*/}" "$file"
  done
  echo "$pool"
}

# Machines and volumes of that name.
forget() {
  for machine in $(virsh list --all --name | grep "^$name-" || true); do
    virsh --quiet destroy "$machine" >/dev/null 2>&1 || true
    virsh --quiet undefine "$machine" --managed-save --snapshots-metadata --nvram
  done
  rm -f "/var/log/libvirt/qemu/$name-"*.log
  virsh --quiet pool-info "$name" >/dev/null 2>&1 || return 0
  virsh --quiet pool-start "$name" >/dev/null 2>&1 || true
  virsh --quiet pool-refresh "$name"
  for volume in $(virsh --quiet vol-list "$name" | awk '{print $1}'); do virsh --quiet vol-delete "$volume" --pool "$name"; done
  virsh --quiet pool-destroy "$name"
  virsh --quiet pool-delete "$name"
  virsh --quiet pool-undefine "$name"
}

down() {
  if answers; then
    forget
    # Keep it running for the machines of others.
    [ -z "$(virsh --quiet list --all --name)" ] || return 0
    if running libvirtd && virsh --quiet net-info vagrant-libvirt >/dev/null 2>&1; then
      virsh --quiet net-destroy vagrant-libvirt >/dev/null 2>&1 || true
      virsh --quiet net-undefine vagrant-libvirt
    fi
  fi
  for daemon in libvirtd virtlogd; do
    if running "$daemon"; then
      kill "$(cat "$directory/$daemon.pid")"
      wait_for gone "$daemon"
    fi
  done
}

"$action" "$@"
