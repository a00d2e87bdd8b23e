#!/bin/sh
# Files that an administrator has on the host before the roles run: all of them must be unchanged after `remove`.
set -eu
# A program at a place that a role needs, and a file that a role writes.
mkdir -p /usr/local/sbin /etc/containerd/certs.d/registry.example.com /etc/cni/net.d /opt/cni/bin
printf '#!/bin/sh\necho "runc of the administrator"\n' >/usr/local/sbin/runc
chmod 755 /usr/local/sbin/runc
echo 'timeout: 7' >/etc/crictl.yaml
# Files beside those of the roles.
printf 'server = "https://registry.example.com"\n' >/etc/containerd/certs.d/registry.example.com/hosts.toml
printf '#!/bin/sh\n' >/opt/cni/bin/administrator
echo br_netfilter >/etc/modules-load.d/administrator.conf
# The network of pods is the administrator's: no role writes one.
cat >/etc/cni/net.d/10-administrator.conflist <<'NETWORK'
{"cniVersion": "1.0.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}]]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
NETWORK
