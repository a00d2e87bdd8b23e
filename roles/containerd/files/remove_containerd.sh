#!/bin/sh
# Removes what the role created besides its releases, restores what it had backed up, and prints the changes.
# Usage: remove_containerd.sh RELEASES check|apply|left PACKAGED [DROP_IN REGISTRY]
# With 'left' it only prints whether a containerd stays that is not the role's. PACKAGED is true where the distribution's package is the
# role's, DROP_IN the path of the drop-in, REGISTRY the directory of registries.
set -eu
releases=$1 action=$2 packaged=$3 drop_in=${4:-} registry=${5:-/etc/containerd/certs.d}
kept=.screwdriver-kata-backup

there() { [ -e "$1" ] || [ -L "$1" ]; }
ours() { head -n 5 "$1" 2>/dev/null | grep -q 'screwdriver.kata.containerd'; }
# A file of the role's that another program has written again has lost its comments.
rewritten() { [ -e "$releases/config.toml" ] && grep -qs 'screwdriver-kata-base-spec.json' "$1"; }
other() {
  for program in /usr/bin/containerd /usr/local/bin/containerd "/usr/local/bin/containerd$kept"; do
    if [ "$packaged" = true ] && [ "$program" = /usr/bin/containerd ]; then continue; fi
    if [ -e "$program" ]; then case $(readlink "$program" || true) in "$releases"/*) ;; *) return 0 ;; esac; fi
  done
  return 1
}
drop() { if there "$1"; then echo "$1"; [ "$action" = check ] || rm -rf "$1"; fi; }
# Removes directories that are empty, unless they were there before the role.
drop_empty() {
  for directory; do
    grep -qsxF "directory $directory" "$releases/record" || rmdir --ignore-fail-on-non-empty "$directory" 2>/dev/null || true
  done
}
# A foreign file there is newer than the one that was kept. In check mode the role's own is still there.
bring_back() {
  there "$1$kept" || return 0
  if [ "$action" = check ]; then echo "$1"; elif ! there "$1"; then echo "$1" && mv -T "$1$kept" "$1"; fi
}

# What was noted at a start of containerd.
recorded() { sed -n "s/^$1 //p" "$releases/data" 2>/dev/null || true; }
# The directories whose content is containerd's alone. A package starts containerd before the role does.
data() {
  recorded data
  if [ "$packaged" = true ] && ! grep -qxF 'content /var/lib/containerd' "$releases/record"; then echo /var/lib/containerd; fi
}

if [ "$action" = left ]; then
  if other; then echo true; else echo false; fi
  exit
fi
unit=/etc/systemd/system/containerd.service
if { ours "$unit" || [ "$packaged" = true ]; } && [ "$action" = apply ]; then
  systemctl disable --now containerd >/dev/null 2>&1 || true
fi
drop_ins=$(grep -lsF 'Managed by the role screwdriver.kata.containerd' /etc/containerd/*/screwdriver-kata.toml \
  /var/lib/rancher/*/agent/etc/containerd/*/screwdriver-kata.toml "$drop_in" | sort -u)
for file in "$unit" /etc/containerd/config.toml $drop_ins; do
  if ours "$file" || { [ "$file" = /etc/containerd/config.toml ] && rewritten "$file"; }; then
    drop "$file"
    for backup in "$file".*~; do drop "$backup"; done
  fi
  bring_back "$file"
done
hosts=$(grep -lsF 'Managed by the role screwdriver.kata.containerd' /etc/containerd/*/*/hosts.toml "$registry"/*/hosts.toml | sort -u)
for file in $hosts; do
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
# Images and snapshots are of no use where no containerd is left. What was in the directory before the role was not recorded, and stays.
if ! other; then
  data | while read -r root; do
    find "$root" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null | grep -q . || continue
    echo "$root"
    [ "$action" = check ] || find "$root" -mindepth 1 ! -path "$root/lost+found*" -delete
  done
  if [ "$action" = apply ]; then
    recorded created | while read -r directory; do rmdir "$directory" 2>/dev/null || true; done
    recorded mode | while read -r mode directory; do chmod "$mode" "$directory"; done
  fi
fi
if [ "$action" = apply ]; then
  for file in $drop_ins; do
    case $file in /etc/containerd/* | /var/lib/rancher/*) drop_empty "${file%/*}" ;; esac
  done
  for file in $hosts; do drop_empty "${file%/*}" "$registry"; done
  drop_empty /etc/containerd/certs.d /etc/containerd/conf.d /etc/containerd /etc/systemd/system/containerd.service.d /opt/cni/bin /opt/cni \
    /opt/containerd/bin /opt/containerd/lib /opt/containerd /etc/cni/net.d /etc/cni
fi
if [ "$action" = apply ]; then systemctl daemon-reload; fi
