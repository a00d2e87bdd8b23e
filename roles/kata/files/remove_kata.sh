#!/bin/sh
# Removes the releases and their link, and brings back a foreign link; prints what it changes. Usage: remove_kata.sh RELEASES check|apply
set -eu
releases=$1 action=$2
kept=/opt/kata.screwdriver-kata-backup

drop() { if [ -e "$1" ] || [ -L "$1" ]; then echo "$1"; [ "$action" = check ] || rm -rf "$1"; fi; }

# containerd forgets the shim of a pod that it was restarted under, and a killed shim leaves its hypervisor.
processes=$(pgrep -f '^/opt/kata[^ ]*/' || true)
if [ -n "$processes" ]; then
  echo "processes of Kata"
  # shellcheck disable=SC2086  # a list of numbers
  [ "$action" = check ] || kill -KILL $processes 2>/dev/null || true
fi
case $(readlink /opt/kata || true) in "$releases"/*) drop /opt/kata ;; esac
if [ -e "$kept" ] || [ -L "$kept" ]; then
  echo /opt/kata
  [ "$action" = check ] || mv -T "$kept" /opt/kata
fi
drop /etc/modules-load.d/screwdriver-kata.conf
for unit in screwdriver-kata-shm.service screwdriver-kata-clean-up.timer; do
  if [ -e "/etc/systemd/system/$unit" ] && [ "$action" = apply ]; then systemctl disable --quiet --now "$unit"; fi
  drop "/etc/systemd/system/$unit"
done
drop /etc/systemd/system/screwdriver-kata-clean-up.service
drop /usr/local/sbin/screwdriver-kata-clean-up
drop "$releases"
