# shellcheck shell=sh
# Removes the releases and their links, and brings back foreign links; prints what it changes.
# Goes behind list_processes.sh and releases.sh.
# Arguments: RELEASES check|apply
set -eu
releases=$1 action=$2
kept=.screwdriver-kata-backup

present() { [ -e "$1" ] || [ -L "$1" ]; }
drop() { if present "$1"; then echo "$1"; [ "$action" = check ] || rm -rf "$1"; fi; }

# A killed shim leaves its hypervisor.
processes=$(list_processes "$releases" | cut -d ' ' -f 1)
if [ -n "$processes" ]; then
  echo "processes of Kata"
  # shellcheck disable=SC2086  # a list of numbers
  [ "$action" = check ] || kill -KILL $processes 2>/dev/null || true
fi
for place in /opt/kata /usr/local/bin/containerd-shim-kata-v2; do
  foreign=false
  case $(readlink "$place" || true) in
    "$releases"/*) drop "$place" ;;
    *) if present "$place"; then foreign=true; fi ;;
  esac
  # A foreign file there is newer than the one that was kept.
  if present "$place$kept" && [ "$foreign" = false ]; then
    echo "$place"
    [ "$action" = check ] || mv -T "$place$kept" "$place"
  fi
done
drop /etc/modules-load.d/screwdriver-kata.conf
for unit in screwdriver-kata-shm.service screwdriver-kata-clean-up.timer; do
  if [ -e "/etc/systemd/system/$unit" ] && [ "$action" = apply ]; then systemctl disable --quiet --now "$unit"; fi
  drop "/etc/systemd/system/$unit"
done
drop /etc/systemd/system/screwdriver-kata-clean-up.service
drop /usr/local/sbin/screwdriver-kata-clean-up
remove_releases "$releases" kata "$action"
