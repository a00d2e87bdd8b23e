#!/usr/bin/env bash
# Prints the state of one build's pod on its node, as one JSON object. Usage: trace.sh POD_UID CONTAINER_NAME
set -eu
uid=$1 name=$2
ctr() { command ctr -n k8s.io "$@"; }
field() { sed -n "s/.*\"$1\": \"\(.*\)\".*/\1/p" | head -n 1; }

container=$(ctr containers ls -q "labels.\"io.kubernetes.pod.uid\"==$uid,labels.\"io.kubernetes.container.name\"==$name" | head -n 1)
sandbox=$(ctr containers ls -q "labels.\"io.kubernetes.pod.uid\"==$uid,labels.\"io.cri-containerd.kind\"==sandbox" | head -n 1)
info=$(ctr containers info "$container")
tasks=$(ctr tasks ls)
pid_of() { echo "$tasks" | awk -v id="$1" '$1 == id {print $2}'; }
shim=$(pgrep -f "containerd-shim.* -id $sandbox" | head -n 1)
snapshot=$(echo "$info" | field SnapshotKey)
# A block device that goes into a guest is mounted nowhere here.
device=$(ctr snapshots --snapshotter "$(echo "$info" | field Snapshotter)" mounts /nowhere "$snapshot" | grep -o '/dev/mapper/[^ ]*' | head -n 1 || true)

cat <<JSON
{"container": "$container", "sandbox": "$sandbox", "runtime": "$(echo "$info" | sed -n '/"Runtime": {/,/}/p' | field Name)",
 "handler": "$(crictl inspectp -o json "$sandbox" | field runtimeHandler)",
 "snapshotter": "$(echo "$info" | field Snapshotter)", "snapshot": "$snapshot",
 "device": "$device", "table": "$(dmsetup table "$device" 2>/dev/null | tr -d '\n')", "pool": "$(dmsetup ls | awk '$1 == "kata-pool" {print $2}')",
 "cgroup": "$(cut -d: -f3 "/proc/$(pid_of "$sandbox")/cgroup" | tail -n 1)", "build_cgroup": "$(cut -d: -f3 "/proc/$(pid_of "$container")/cgroup" | tail -n 1)",
 "shim": "$(readlink "/proc/$shim/exe")", "containerd": "$(containerd --version | awk '{print $3}')",
 "kernel": "$(uname -r)", "guest_kernel": "$(crictl exec "$container" uname -r)"}
JSON
