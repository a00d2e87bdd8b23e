# shellcheck shell=sh
# Distinguishes the releases of a role (containerd, crictl or kata) from foreign files in the same directory, which no role deletes.

# Whether an entry of the directory is the role's. Usage: own_release ENTRY ROLE
own_release() {
  case $2 in containerd) archives='(containerd|runc|cni-plugins)-' ;; *) archives="$2-" ;; esac
  case $2/${1##*/} in
    */current | */current.new.* | */previous | */previous.new.*) [ -L "$1" ] ;;
    containerd/config.toml | containerd/data | containerd/record | kata/rolled_back) [ -f "$1" ] ;;
    */downloads) [ -d "$1" ] && ! find "$1" -mindepth 1 -maxdepth 1 -printf '%f\n' | grep -qvE "^$archives" ;;
    # What an interrupted run left.
    */[0-9]*.[0-9]*.[0-9]*.part | */[0-9]*.[0-9]*.[0-9]*.old) [ -d "$1" ] ;;
    *) grep -qsE "^$archives" "$1/complete" ;;
  esac
}
# Up to three entries of others in a directory that has no release of the role yet. Usage: foreign_entries DIRECTORY ROLE
foreign_entries() {
  for entry in "$1"/*; do if [ ! -L "$entry" ] && [ -e "$entry/complete" ] && own_release "$entry" "$2"; then return; fi; done
  find "$1/" -mindepth 1 -maxdepth 1 ! -name lost+found 2>/dev/null | sort | while read -r entry; do
    own_release "$entry" "$2" || echo "${entry##*/}"
  done | head -n 3
}
# The directory of the role's releases that a link leads to, where it is another one. Usage: other_releases DIRECTORY ROLE LINK
other_releases() {
  target=$(readlink "$3") || return 0
  while [ "$target" != "${target%/*}" ]; do
    target=${target%/*}
    if [ -e "$target/complete" ] && own_release "$target" "$2"; then
      [ "${target%/*}" = "$1" ] || echo "${target%/*}"
      return
    fi
  done
}
# What a probe prints of the directory, with list of probe_functions.sh. Usage: directory DIRECTORY ROLE LINK
directory() { printf '"foreign_entries": %s, "other_releases": "%s"' "$(foreign_entries "$1" "$2" | list)" "$(other_releases "$@")"; }
# A release has another name before its first file is deleted, so one that is deleted in part never counts as complete.
set_aside() {
  if [ -e "$1.old" ]; then rm -rf "$1.old"; fi
  mv -T "$1" "$1.old"
}
# Removes the role's releases, and the directory where nothing else is in it; prints the directory where it changes. A link to another disk
# stays. Usage: remove_releases DIRECTORY ROLE check|apply
remove_releases() {
  found=false
  for entry in "$1"/*; do
    if own_release "$entry" "$2"; then
      found=true
      if [ "$3" = apply ] && [ -e "$entry/complete" ] && [ "${entry%.old}" = "$entry" ]; then set_aside "$entry"; fi
    fi
  done
  if [ "$3" = apply ]; then
    for entry in "$1"/*; do
      if own_release "$entry" "$2"; then rm -rf "$entry"; fi
    done
  fi
  if [ "$found" = true ]; then echo "$1"; fi
  if [ "$3" = apply ] && [ ! -L "$1" ]; then rmdir "$1" 2>/dev/null || true; fi
}
