#!/bin/sh
# Measures a write to the root disk and the setup of a container under a runtime, on one snapshotter, and prints one JSON object.
# Environment: CONTAINERD_ADDRESS (of ctr), IMAGE (on the node already), RUNTIME, CONFIG_PATH (may be empty), SNAPSHOTTER, WRITE_BYTES, RUNS,
# TIMEOUT in seconds.
# All of it happens in a containerd namespace of its own, which is removed in the end.
set -eu
# Programs print decimal points and English messages.
export LC_ALL=C
# Not every sudo looks there, and RKE2 and k3s keep ctr in places of their own.
PATH=$PATH:/usr/local/bin:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
work=$(mktemp -d)
# In the foreground, since a process group of its own may not touch the terminal.
own() { timeout --foreground "$TIMEOUT" ctr -n kata-benchmark "$@" </dev/null; }

stop() {
  own tasks kill --signal SIGKILL "$1" || true
  own tasks rm --force "$1" || true
  own containers rm "$1" || true
}
clean() {
  for container in $(own containers ls -q); do stop "$container"; done
  for image in $(own images ls -q); do own images rm --sync "$image"; done
  ctr namespaces rm kata-benchmark
}
trap 'clean >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
step() { what=$1; shift; "$@" 2>"$work/error" || { printf '%s: %s\n' "$what" "$(tr '\n' ' ' <"$work/error" | tail -c 600)" >&2; exit 1; }; }
seconds() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.3f", b - a }'; }
setup() {
  started=$(date +%s.%N)
  step "Container on $SNAPSHOTTER" own run --detach --snapshotter "$SNAPSHOTTER" --runtime "$RUNTIME" \
    ${CONFIG_PATH:+--runtime-config-path "$CONFIG_PATH"} "${IMAGE:?}" "benchmark-$1" sleep 3600 >/dev/null
  step "Command in the container" own tasks exec --exec-id setup "benchmark-$1" uname >/dev/null
  seconds "$started"
}

clean >/dev/null 2>&1 || true
if ! ctr plugins ls | awk -v name="$SNAPSHOTTER" '$1 ~ /snapshotter/ && $2 == name && $NF == "ok" { found = 1 } END { exit !found }'; then
  printf '{"snapshotter": "%s", "there": false}\n' "$SNAPSHOTTER"
  exit
fi
# ctr needs the whole name, such as docker.io/library/busybox:latest for busybox.
names='{{range .status.repoTags}}{{println .}}{{end}}{{range .status.repoDigests}}{{println .}}{{end}}'
name=$(crictl inspecti --output go-template --template "$names" "${IMAGE:?}" 2>/dev/null | sed -n '/./p' | head -n 1) || true
IMAGE=${name:-$IMAGE}
step "Export of image $IMAGE" ctr -n k8s.io images export "$work/image.tar" "$IMAGE"
step "Import of image $IMAGE" own images import --no-unpack "$work/image.tar" >/dev/null

cold=$(setup cold)
started=$(date +%s.%N)
step "Write of $WRITE_BYTES bytes on $SNAPSHOTTER" own tasks exec --exec-id write benchmark-cold \
  dd if=/dev/zero of=/benchmark bs=1024000 "count=$((WRITE_BYTES / 1024000))" conv=fsync >/dev/null
write=$(seconds "$started")
stop benchmark-cold >/dev/null 2>&1
run=0
while [ "$run" -lt "$RUNS" ]; do
  run=$((run + 1))
  setup "$run" >>"$work/warm"
  echo >>"$work/warm"
  stop "benchmark-$run" >/dev/null 2>&1
done
warm=$(sort -n "$work/warm" | sed -n "$(((RUNS + 1) / 2))p")

printf '{"snapshotter": "%s", "there": true, "cold_seconds": %s, "warm_seconds": %s, "write_seconds": %s, "write_bytes": %s}\n' \
  "$SNAPSHOTTER" "$cold" "$warm" "$write" "$((WRITE_BYTES / 1024000 * 1024000))"
