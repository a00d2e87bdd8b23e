#!/bin/sh
# Managed by the role screwdriver.kata.kata.
# Removes what pods leave on a node: directories of builds (/opt/screwdriver/tmp_N, which Screwdriver never removes) and of sandboxes that are gone.
# Usage: clean_up.sh HOURS [check|apply]. HOURS is the age from which they are removed. Prints each directory that it removes. One that is the source of
# a mount, or whose sandbox exists, stays.
set -eu
PATH=$PATH:/usr/sbin:/usr/local/bin
minutes=$(($1 * 60)) action=${2:-apply}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Without this list nothing is known to be gone; without crictl there is no CRI that has sandboxes.
: >"$work/pods"
if command -v crictl >/dev/null && [ -S "$(crictl config --get runtime-endpoint 2>/dev/null | sed 's#^unix://##')" ]; then
  crictl pods -q >"$work/pods"
fi

is_old() { [ "$minutes" -eq 0 ] || [ -n "$(find "$1" -maxdepth 0 -mmin "+$minutes")" ]; }
# A directory as mounts name their source: the number of its file system and the path in that, which has the subvolume of btrfs and not the
# mount point. Of mounts on one place the last is what is seen.
source_of() {
  place=$(printf '%s' "$1" | sed 's/ /\\040/g') awk '{
    top = $5 == "/" ? "" : $5
    if (index(ENVIRON["place"] "/", top "/") == 1 && length(top) >= most) {
      most = length(top)
      source = $3 " " ($4 == "/" ? "" : $4) substr(ENVIRON["place"], most + 1)
    }
  } END { print source }' /proc/self/mountinfo
}
# Whether a mount in any namespace has the directory or something in it as its source: a build's container has it.
is_source() {
  source=$(source_of "$1")
  [ -n "$source" ] || return 0
  cat /proc/[0-9]*/mountinfo 2>/dev/null | source=$source awk '
    index($3 " " $4 "/", ENVIRON["source"] "/") == 1 { found = 1; exit }
    END { exit !found }'
}
mounts_below() { awk -v top="$1" '$5 == top || index($5, top "/") == 1 {print $5}' /proc/self/mountinfo | sort -r; }
# Never through a mount: what is shared with a guest is a foreign volume.
remove() {
  if [ "$action" = check ]; then
    echo "$1"
    return
  fi
  for mount in $(mounts_below "$1"); do umount "$mount" 2>/dev/null || umount --lazy "$mount"; done
  [ -z "$(mounts_below "$1")" ] || return 0
  rm -rf --one-file-system "$1"
  echo "$1"
}

# A link may lead to a larger disk.
builds=$(readlink -f /opt/screwdriver) || builds=/opt/screwdriver
for directory in "$builds"/tmp_*; do
  if [ -d "$directory" ] && [ ! -L "$directory" ] && is_old "$directory" && ! is_source "$directory"; then remove "$directory"; fi
done
for directory in /run/vc/sbs/* /run/vc/vm/* /run/kata/* /run/kata-containers/shared/sandboxes/*; do
  sandbox=${directory##*/}
  if [ -d "$directory" ] && is_old "$directory" && ! grep -q -F "$sandbox" "$work/pods" && ! grep -q -s -F "$sandbox" /proc/[0-9]*/cmdline; then
    remove "$directory"
  fi
done
if [ "$minutes" -eq 0 ] && [ "$action" = apply ]; then
  rmdir --ignore-fail-on-non-empty /opt/screwdriver /run/vc/sbs /run/vc/vm /run/vc /run/kata /run/kata-containers/shared/sandboxes \
    /run/kata-containers/shared /run/kata-containers 2>/dev/null || true
fi
