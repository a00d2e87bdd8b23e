#!/bin/sh
# Runs a pod under a handler through the CRI, as a kubelet would, and prints its container's ID. Usage: pod.sh HANDLER NAME [NETWORK]
# NETWORK is the CRI's number of a namespace mode: 0 for the pod's own, 2 for the node's.
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/pod.json" <<POD
{"metadata": {"name": "$2", "namespace": "molecule", "uid": "$2", "attempt": 0}, "linux": {"cgroup_parent": "system.slice", "security_context": {"namespace_options": {"network": ${3:-0}}}}}
POD
cat >"$work/container.json" <<CONTAINER
{"metadata": {"name": "$2"}, "image": {"image": "docker.io/library/busybox:1.37.0"}, "command": ["sleep", "86400"]}
CONTAINER
crictl inspecti -q docker.io/library/busybox:1.37.0 >/dev/null 2>&1 || crictl pull docker.io/library/busybox:1.37.0 >/dev/null
sandbox=$(crictl runp --runtime "$1" "$work/pod.json")
container=$(crictl create "$sandbox" "$work/container.json" "$work/pod.json")
crictl start "$container" >/dev/null
echo "$container"
