#!/bin/sh
# Removes what the role created, restores what it had backed up, and prints the changes. Usage: remove_containerd.sh RELEASES check|apply
# With 'left' instead it prints whether a containerd stays that is not the role's.
set -eu
releases=$1 action=$2
kept=.screwdriver-kata-backup

there() { [ -e "$1" ] || [ -L "$1" ]; }
ours() { head -n 5 "$1" 2>/dev/null | grep -q 'screwdriver.kata.containerd'; }
# A file of the role's that another program has written again has lost its comments.
rewritten() { [ -e "$releases/config.toml" ] && grep -qs 'screwdriver-kata-base-spec.json' "$1"; }
other() {
  for program in /usr/bin/containerd /usr/local/bin/containerd "/usr/local/bin/containerd$kept"; do
    if [ -e "$program" ]; then case $(readlink "$program" || true) in "$releases"/*) ;; *) return 0 ;; esac; fi
  done
  return 1
}
drop() { if there "$1"; then echo "$1"; [ "$action" = check ] || rm -rf "$1"; fi; }
# A foreign file there is newer than the one that was kept. In check mode the role's own is still there.
bring_back() {
  there "$1$kept" || return 0
  if [ "$action" = check ]; then echo "$1"; elif ! there "$1"; then echo "$1" && mv -T "$1$kept" "$1"; fi
}

if [ "$action" = left ]; then
  if other; then echo true; else echo false; fi
  exit
fi
unit=/etc/systemd/system/containerd.service
if ours "$unit" && [ "$action" = apply ]; then
  systemctl disable --now containerd >/dev/null 2>&1 || true
fi
drop_ins=$(grep -lsF 'Managed by the role screwdriver.kata.containerd' /etc/containerd/*/screwdriver-kata.toml \
  /var/lib/rancher/*/agent/etc/containerd/*/screwdriver-kata.toml || true)
for file in "$unit" /etc/containerd/config.toml $drop_ins; do
  if ours "$file" || { [ "$file" = /etc/containerd/config.toml ] && rewritten "$file"; }; then
    drop "$file"
    for backup in "$file".*~; do drop "$backup"; done
  fi
  bring_back "$file"
done
for file in $(grep -lsF 'Managed by the role screwdriver.kata.containerd' /etc/containerd/*/*/hosts.toml || true); do
  drop "$file"
  bring_back "$file"
done
drop /etc/systemd/system/containerd.service.d/screwdriver-kata-limits.conf
drop /etc/containerd/screwdriver-kata-base-spec.json
for place in /usr/local/bin/* /usr/local/sbin/* /opt/cni/bin/*; do
  case $(readlink "$place" || true) in "$releases"/current/*) drop "$place" ;; esac
done
for program in containerd ctr containerd-shim-runc-v2; do bring_back "/usr/local/bin/$program"; done
bring_back /usr/local/sbin/runc
for place in /opt/cni/bin/*"$kept"; do bring_back "${place%"$kept"}"; done
# Images and snapshots are of no use where no containerd is left. The directory may be a mount, which stays.
if [ -e "$releases" ] && ! other && [ -n "$(ls -A /var/lib/containerd 2>/dev/null)" ]; then
  echo /var/lib/containerd
  if [ "$action" = apply ]; then
    find /var/lib/containerd -mindepth 1 -delete
    rmdir /var/lib/containerd 2>/dev/null || true
  fi
fi
drop "$releases"
if [ "$action" = apply ]; then
  for file in $drop_ins; do rmdir --ignore-fail-on-non-empty "${file%/*}"; done
  rmdir --ignore-fail-on-non-empty /etc/containerd/certs.d/* /etc/containerd/certs.d /etc/containerd/conf.d /etc/containerd \
    /etc/systemd/system/containerd.service.d /opt/cni/bin /opt/cni /opt/containerd/bin /opt/containerd/lib /opt/containerd \
    /etc/cni/net.d /etc/cni 2>/dev/null || true
  systemctl daemon-reload
fi
