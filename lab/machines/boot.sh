#!/usr/bin/env bash
# Boots one container. Runs in its own mount namespace, so that its mounts end with it.
# Usage: boot.sh BASE DIRECTORY NAME HOSTNAME
set -euo pipefail
base=$1 directory=$2 name=$3 hostname=$4

# Its own cgroup in every tree, which the systemd of the container takes for the root.
findmnt --noheadings --list --output TARGET --types cgroup,cgroup2 | while read -r tree; do
  mkdir -p "$tree/$name"
  for file in cpuset.cpus cpuset.mems; do
    if [ -e "$tree/$file" ]; then cat "$tree/$file" >"$tree/$name/$file"; fi
  done
  echo $$ >"$tree/$name/cgroup.procs"
done
mkdir -p "$directory/upper/etc"
printf '127.0.0.1 localhost %s\n' "$hostname" >"$directory/upper/etc/hosts"
mount -t overlay -o "lowerdir=$base,upperdir=$directory/upper,workdir=$directory/work" overlay "$directory/root"
# nspawn would leave its notes behind after a crash.
mkdir -p /run/systemd/nspawn
mount -t tmpfs tmpfs /run/systemd/nspawn
# containerd's overlayfs cannot lie on another overlayfs, so its state is on a plain directory; runc wants keyrings and bpf.
options=(--quiet --register=no --keep-unit --boot --console=pipe --private-network --capability=all --system-call-filter='@keyring bpf')
mounts=(--directory="$directory/root" --bind="$directory/run:/run/lab" --bind="$directory/state:/var/lib/containerd")
while
  status=0
  systemd-nspawn "${options[@]}" "${mounts[@]}" --machine="$name" --hostname="$hostname" || status=$?
  # nspawn exits with this code if the container is to be started again.
  [ "$status" -eq 133 ]
do :; done
exit "$status"
