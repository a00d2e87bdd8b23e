# shellcheck shell=sh
# Detects who made the node: who manages its containerd, and whether kata-deploy installed Kata. Goes behind probe_functions.sh.
# detect_installer sets the variables below, and installer prints them.
installer='' containerd_unit=containerd containerd_config=/etc/containerd/config.toml containerd_bin='' containerd_managed=false
containerd_socket=/run/containerd/containerd.sock containerd_state=/var/lib/containerd

# The first of these units that runs or starts at boot. RKE2's package brings the units of servers and of agents.
unit_of() {
  present=
  for unit; do
    for place in /etc /usr/local/lib /usr/lib /lib; do [ ! -f "$place/systemd/system/$unit.service" ] || present="$present $unit"; done
  done
  for question in is-active is-enabled; do
    for unit in $present; do systemctl "$question" --quiet "$unit" && echo "$unit" && return; done
  done
  return 1
}
# k3s and RKE2 write the configuration of version 3 to the same file as an older one.
rancher() {
  installer=$1 containerd_unit=$2 containerd_bin=$3 containerd_managed=true
  containerd_config=/var/lib/rancher/$1/agent/etc/containerd/config.toml
  containerd_socket=/run/k3s/containerd/containerd.sock
  containerd_state=/var/lib/rancher/$1/agent/containerd
}
detect_installer() {
  if unit=$(unit_of rke2-agent rke2-server); then
    rancher rke2 "$unit" /var/lib/rancher/rke2/bin
  elif unit=$(unit_of k3s-agent k3s); then
    rancher k3s "$unit" /var/lib/rancher/k3s/data/current/bin
  elif unit=$(unit_of k0sworker k0scontroller); then
    installer=k0s containerd_unit=$unit containerd_socket=/run/k0s/containerd.sock containerd_state=/var/lib/k0s/containerd
    containerd_config=/etc/k0s/containerd.toml containerd_bin=/var/lib/k0s/bin containerd_managed=true
  elif unit=$(unit_of snap.microk8s.daemon-containerd); then
    installer=microk8s containerd_unit=$unit containerd_socket=/var/snap/microk8s/common/run/containerd.sock
    containerd_config=/var/snap/microk8s/current/args/containerd.toml containerd_state=/var/snap/microk8s/common/var/lib/containerd
    containerd_bin=/snap/microk8s/current/bin containerd_managed=true
  elif [ -d /etc/eks ] || [ -x /usr/bin/nodeadm ]; then
    installer=eks
  elif [ -f /etc/kubernetes/kubelet.env ] && { [ -f /etc/kubernetes/kubeadm-config.yaml ] || [ -f /etc/kubernetes/kubeadm-client.conf ]; }; then
    # A node that serves the API has the one, another node the other.
    installer=kubespray
  elif [ -f /var/lib/kubelet/kubeadm-flags.env ]; then
    installer=kubeadm
  elif unit_of docker >/dev/null; then
    installer=docker
  fi
  root=$(configured_root "$containerd_config")
  containerd_state=${root:-$containerd_state}
}
# The top level of the configuration is above its first table.
configured_root() { sed -n "/^ *\\[/q; s/^ *root *= *[\"']\([^\"']*\)[\"'].*/\1/p" "$1"; }
# The handlers of kata-deploy, each with its snapshotter, which is empty where it is containerd's default. Its /opt/kata is a directory,
# where that of the role kata is a link.
kata_deploy() {
  printf '{'
  if [ -d /opt/kata ] && [ ! -L /opt/kata ]; then
    cat "$containerd_config" "${containerd_config%/*}"/conf.d/kata-deploy*.toml "${containerd_config%/*}"/config-v3.toml.d/kata-deploy*.toml \
      "${containerd_config%/*}"/containerd.d/kata-deploy*.toml /opt/kata*/containerd/config.d/kata-deploy*.toml | tr -d "\"'" | awk '
      /^ *\[/ { name = "" }
      /^ *\[plugins\..*\.containerd\.runtimes\.kata-[-a-z0-9]*\]/ { name = $0; sub(/^.*\.runtimes\./, "", name); sub(/\].*$/, "", name) }
      name && /^ *runtime_path *= *\/opt\/kata/ { found[name] = found[name] }
      name && /^ *snapshotter *= */ { value = $0; sub(/^[^=]*= */, "", value); sub(/[ #].*$/, "", value); wanted[name] = value }
      END { for (name in found) { printf "%s\"%s\": \"%s\"", (count++ ? ", " : ""), name, wanted[name] } }'
  fi
  printf '}'
}
installer() {
  printf '"installer": {"name": "%s", "managed": %s, "unit": "%s", "config": "%s", "socket": "%s", "bin": "%s", "state": "%s", "kata_deploy": %s}' \
    "$installer" "$containerd_managed" "$containerd_unit" "$containerd_config" "$containerd_socket" "$containerd_bin" "$containerd_state" \
    "$(kata_deploy)"
}
