# shellcheck shell=sh
# Prints the sandboxes that run on a release of the role. containerd knows them; where it does not answer, shims and hypervisors are all
# there is to see. Goes behind list_processes.sh. The argument is the directory of releases.
exec 2>/dev/null
PATH=$PATH:/usr/local/bin:/var/lib/rancher/rke2/bin:/var/lib/rancher/k3s/data/current/bin
CONTAINERD_ADDRESS=$(sed -n 's|^runtime-endpoint: unix://||p' /etc/crictl.yaml)
export CONTAINERD_ADDRESS="${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock}"

# Sandboxes of another Kata stay.
processes=$(list_processes "$1")
[ -n "$processes" ] || exit 0
if namespaces=$(ctr namespaces list --quiet 2>/dev/null); then
  for namespace in $namespaces; do
    tasks=$(ctr --namespace "$namespace" tasks list --quiet)
    ctr --namespace "$namespace" containers list --quiet runtime.name==io.containerd.kata.v2 | grep -xF "${tasks:-none}"
  done
else
  echo "$processes" | grep -E '/(containerd-shim-kata-v2|qemu-system-|cloud-hypervisor|firecracker)[^/]*$'
fi
exit 0
