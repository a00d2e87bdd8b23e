#!/bin/sh
# Proves that the node runs pods in a Kata sandbox, and prints what it observed as one JSON object. The argument is the part:
#   before   checks that the pool and /dev/shm have room, and imports the image; prints when it began
#   cri      runs a pod through the node's CRI, inspects it and removes it
#   inspect  inspects the running container CONTAINER
#   explain  prints what containerd has logged since STARTED
# Environment: HANDLER, IMAGE, IMAGE_ARCHIVE (may be empty), POOL (volume group/name, may be empty), MAX_DATA_PERCENT, MAX_METADATA_PERCENT,
# MAX_SHM_PERCENT, WRITE_BYTES, VSYSCALL (true probes for it), CGROUP_PARENT, NETWORK, TIMEOUT in seconds, KUBELET and CONTAINERD (units); for inspect
# CONTAINER and SETUP_SECONDS; for explain STARTED in seconds since the epoch.
set -eu
# Programs print decimal points and English messages.
export LC_ALL=C
# Not every sudo looks there, and RKE2 and k3s keep ctr in places of their own.
PATH=$PATH:/usr/local/bin:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
# ctr asks the containerd that crictl asks.
CONTAINERD_ADDRESS=$(sed -n 's|^runtime-endpoint: unix://||p' /etc/crictl.yaml 2>/dev/null || true)
export CONTAINERD_ADDRESS="${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock}"
label=kata.screwdriver.cd/proof
work=$(mktemp -d)
started_at=${STARTED:-$(date +%s)}
# It waits for twice this time for a sandbox.
crictl() { command crictl --timeout "${TIMEOUT}s" "$@"; }

# No pod stays, neither this one nor one that an interrupted run left.
clean() {
  for pod in $(crictl pods -q --label "$label=true" 2>/dev/null); do
    crictl stopp "$pod" >/dev/null 2>&1 || true
    crictl rmp -f "$pod" >/dev/null 2>&1 || true
  done
}
finish() {
  if [ "$part" = cri ]; then clean; fi
  rm -rf "$work"
}
error() { tr '\n' ' ' <"$work/error" | tail -c 600; }
step() { what=$1; shift; "$@" 2>"$work/error" || { printf '%s: %s\n' "$what" "$(error)" >&2; exit 1; }; }
# The CRI's error often hides the reason, which containerd has logged.
sandbox_step() {
  what=$1
  shift
  "$@" 2>"$work/error" || { printf '%s: %s containerd logged: %s\n' "$what" "$(error)" "$(logged)" >&2; exit 1; }
}
logged() {
  journalctl --unit "$CONTAINERD" --since "@$started_at" --output cat --no-pager >"$work/journal" 2>/dev/null || true
  # k3s and RKE2 keep the log of their containerd in a file.
  if [ ! -s "$work/journal" ]; then tail -q -n 200 /var/lib/rancher/*/agent/containerd/containerd.log >"$work/journal" 2>/dev/null || true; fi
  grep -E 'level=(error|warning|fatal)' "$work/journal" >"$work/bad" || cp "$work/journal" "$work/bad"
  tail -n 5 "$work/bad" | sed 's/^time="[^"]*" //' | cut -c 1-400 | tr '\n' ' '
}
seconds() { awk -v a="$1" -v b="$(date +%s.%N)" 'BEGIN { printf "%.3f", b - a }'; }

# Before the pod: on a full pool it would wait a minute and fail with an input/output error without a reason.
data='' metadata=''
check_pool() {
  [ -n "${POOL:-}" ] || return 0
  fields=data_percent,metadata_percent,lv_health_status,lv_check_needed
  row=$(step "State of pool $POOL" lvs --noheadings --nosuffix --separator '|' -o "$fields" "$POOL" | tr -d ' ')
  data=$(echo "$row" | cut -d '|' -f 1) metadata=$(echo "$row" | cut -d '|' -f 2) health=$(echo "$row" | cut -d '|' -f 3)
  case $health in
    '' | out_of_data) ;;
    *) health_error "has the state $health" ;;
  esac
  [ -z "$(echo "$row" | cut -d '|' -f 4)" ] || health_error "needs a check of its metadata"
  case $data:$metadata in :* | *:) health_error "reports no usage" ;; esac
  check_room data "$data" "$MAX_DATA_PERCENT" "add a disk to thin_pool_devices"
  check_room metadata "$metadata" "$MAX_METADATA_PERCENT" "raise thin_pool_metadata_size"
}
health_error() {
  printf 'Pool %s %s; stop containerd and repair it with lvchange --activate n %s && lvconvert --repair %s && lvchange --activate y %s.\n' \
    "$POOL" "$1" "$POOL" "$POOL" "$POOL" >&2
  exit 1
}
check_room() {
  awk -v used="$2" -v most="$3" 'BEGIN { exit !(used + 0 <= most) }' && return
  printf 'Pool %s has %s %% of its %s in use, more than %s %%; %s.\n' "$POOL" "$2" "$1" "$3" "$4" >&2
  exit 1
}
# QEMU keeps the memory of guests there. When it is full, a sandbox fails without a reason.
shm_size=0 shm_available=0
check_shm() {
  row=$(df -P -k /dev/shm 2>/dev/null | tail -n 1) || return 0
  # Some awk print large numbers with an exponent.
  shm_size=$(($(echo "$row" | awk '{print $2}') * 1024)) shm_available=$(($(echo "$row" | awk '{print $4}') * 1024))
  awk -v size="$shm_size" -v free="$shm_available" -v most="$MAX_SHM_PERCENT" 'BEGIN { exit !(size == 0 || 100 - 100 * free / size <= most) }' && return
  printf '/dev/shm, which has the memory of guests, has only %s of %s bytes free, and more than %s %% in use; end what uses it, or enlarge it.\n' \
    "$shm_available" "$shm_size" "$MAX_SHM_PERCENT" >&2
  exit 1
}
import_image() {
  [ -z "${IMAGE_ARCHIVE:-}" ] || step "Import of $IMAGE_ARCHIVE" ctr -n k8s.io images import --no-unpack "$IMAGE_ARCHIVE" >/dev/null
}
before() { check_pool; check_shm; import_image; }

# A hypervisor whose sandbox is gone: an interrupted shim leaves one, with all the memory of its guest.
hypervisor='' orphans=''
find_hypervisors() {
  # A hypervisor's command line may have the beginning of an ID alone.
  crictl pods -q 2>/dev/null | cut -c 1-30 >"$work/pods"
  releases=$(readlink -f /opt/kata || echo /opt/kata)
  for process in /proc/[0-9]*; do
    program=$(readlink "$process/exe" 2>/dev/null) || continue
    case $program in /opt/kata/* | /opt/kata-releases/* | "$releases"/*) ;; *) continue ;; esac
    case ${program##*/} in qemu-system-* | cloud-hypervisor* | firecracker*) ;; *) continue ;; esac
    command=$(tr '\0' ' ' <"$process/cmdline" 2>/dev/null) || continue
    case $command in *"$(echo "$1" | cut -c 1-30)"*) hypervisor=${program##*/} ;; esac
    printf '%s' "$command" | grep -q -F -f "$work/pods" || orphans="$orphans ${process#/proc/}"
  done
}
# What containerd gives the handler, and the release that is in use: known faults depend on them.
shim='' configured='' release=''
find_release() {
  template='{{with index .config.containerd.runtimes "'$HANDLER'"}}{{.runtimePath}}|{{with .options}}{{.ConfigPath}}{{end}}{{end}}'
  row=$(crictl info --output go-template --template "$template" 2>/dev/null) || return 0
  case $row in
    /opt/kata/runtime-rs/*) shim=rust ;;
    /opt/kata/*) shim=go ;;
    *) return 0 ;;
  esac
  release=$(cat /opt/kata/VERSION 2>/dev/null || true)
  configured=$(sed -n 's/^\[hypervisor\.\([a-z-]*\)\].*/\1/p' "${row#*|}" 2>/dev/null | head -n 1)
  case $configured in
    firecracker) configured='fc' ;;
    cloud-hypervisor) configured=clh ;;
  esac
}
inside() { step "Command '$*' in the sandbox" crictl exec "$container" sh -c "$*"; }
probe_vsyscall() {
  [ "${VSYSCALL:-false}" = true ] || return 0
  # A program of 140 bytes for x86_64 that calls time() in the vsyscall page and exits.
  program=f0VMRgIBAQAAAAAAAAAAAAIAPgABAAAAeABAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAEAAOAABAAAAAAAAAAEAAAAFAAAAAAAAAAAAAAAAAEAAAAAAAAAAQAAAAAAA
  program=${program}jAAAAAAAAACMAAAAAAAAAAAQAAAAAAAAMf9Ix8AABGD//9Ax/7g8AAAADwU=
  inside "[ \$(uname -m) = x86_64 ] || { echo unknown; exit; }; echo $program | base64 -d >/vsyscall && chmod 755 /vsyscall &&
    if /vsyscall; then echo works; else echo fails; fi; rm -f /vsyscall"
}
inspect() {
  container=$1
  guest=$(inside uname -r)
  setup=$2
  [ -n "$setup" ] || setup=$(seconds "$started")
  root=$(inside "awk '\$2 == \"/\" {print \$1, \$3}' /proc/mounts" | tail -n 1)
  nofile=$(inside ulimit -n)
  started=$(date +%s.%N)
  blocks=$(((WRITE_BYTES + 999999) / 1000000))
  inside "dd if=/dev/zero of=/proof bs=1000000 count=$blocks conv=fsync 2>/dev/null && rm /proof" >/dev/null
  write=$(seconds "$started")
  vsyscall=$(probe_vsyscall)
  ctr -n k8s.io containers info "$container" >"$work/info"
  snapshotter=$(sed -n 's/.*"Snapshotter": "\(.*\)".*/\1/p' "$work/info")
  snapshot=$(sed -n 's/.*"SnapshotKey": "\(.*\)".*/\1/p' "$work/info")
  sandbox=$(crictl inspect --output go-template --template '{{.info.sandboxID}}' "$container" 2>/dev/null || true)
  find_hypervisors "${sandbox:-none}"
  find_release

  printf '{"handler": "%s", "host_kernel": "%s", "guest_kernel": "%s", "root_device": "%s", "root_type": "%s", "nofile": "%s", ' \
    "$HANDLER" "$(uname -r)" "$guest" "${root% *}" "${root#* }" "$nofile"
  printf '"hypervisor": "%s", "orphans": "%s", "vsyscall": "%s", "shm_bytes": %s, "shm_available_bytes": %s, ' \
    "$hypervisor" "${orphans# }" "$vsyscall" "$shm_size" "$shm_available"
  printf '"shim": "%s", "configured_hypervisor": "%s", "kata_version": "%s", "containerd_version": "%s", ' \
    "$shim" "$configured" "$release" "$(ctr version 2>/dev/null | sed -n '/^Server/,$ s/^ *Version: *v*//p' | head -n 1)"
  printf '"setup_seconds": %s, "write_bytes_per_second": %s, "snapshotter": "%s", "snapshot": "%s", "data_percent": %s, "metadata_percent": %s}\n' \
    "$setup" "$(awk -v b="${blocks}000000" -v s="$write" 'BEGIN { printf "%.0f", b / (s > 0 ? s : 0.001) }')" \
    "$snapshotter" "$snapshot" "${data:-null}" "${metadata:-null}"
}

# A kubelet ends every pod that is not of its cluster within seconds.
refuse_kubelet() {
  [ "$(systemctl is-active "$KUBELET" 2>/dev/null)" = active ] || return 0
  printf 'The service %s runs here and would end a pod that is not of its cluster; set cluster_managed to true and node_proof_node to the name %s\n' \
    "$KUBELET" "of this node in the cluster, so that the proof is a pod of the cluster." >&2
  exit 1
}
run_pod() {
  crictl inspecti -q "$IMAGE" >/dev/null 2>&1 || step "Pull of image $IMAGE" crictl pull "$IMAGE" >/dev/null
  cat >"$work/pod.json" <<POD
{"metadata": {"name": "kata-proof", "namespace": "kata-proof", "uid": "kata-proof-$$", "attempt": 0}, "labels": {"$label": "true"},
 "log_directory": "$work", "linux": {"cgroup_parent": "$CGROUP_PARENT", "security_context": {"namespace_options": {"network": ${NETWORK:-0}}}}}
POD
  cat >"$work/container.json" <<CONTAINER
{"metadata": {"name": "proof"}, "image": {"image": "$IMAGE"}, "command": ["sh", "-c", "sleep 3600"], "log_path": "proof.log", "linux": {}}
CONTAINER
  started=$(date +%s.%N)
  pod=$(sandbox_step "Sandbox under handler $HANDLER" crictl runp --runtime "$HANDLER" "$work/pod.json")
  id=$(sandbox_step "Container of the proof" crictl create "$pod" "$work/container.json" "$work/pod.json")
  sandbox_step "Start of the proof's container" crictl start "$id" >/dev/null
}

part=$1
trap finish EXIT
trap 'exit 1' INT TERM HUP
case $part in
  before)
    before
    printf '{"started": %s}\n' "$started_at"
    ;;
  cri)
    refuse_kubelet
    clean
    before
    run_pod
    inspect "$id" ""
    ;;
  inspect)
    check_pool
    check_shm
    inspect "${CONTAINER:?}" "$SETUP_SECONDS"
    ;;
  explain) logged ;;
esac
