# shellcheck shell=sh
# Points /opt/kata at another release, keeps the one before for a rollback, and removes releases older than both. Goes behind releases.sh.
# Usage: switch_release.sh RELEASES present|rolled_back VERSION
set -eu
releases=$1 state=$2 version=$3

point() { ln -s "$1" "$2.new.$$" && mv -T "$2.new.$$" "$2"; }
linked() { target=$(readlink "$1") && basename "${target%/opt/kata}" || true; }

current=
case $(readlink /opt/kata || true) in
  "$releases"/*) current=$(linked /opt/kata) ;;
  # A foreign link, such as one to a larger disk, comes back with the entry point absent.
  ?*) mv -T /opt/kata /opt/kata.screwdriver-kata-backup ;;
esac
if [ "$state" = rolled_back ]; then
  version=$(linked "$releases/previous")
  touch "$releases/rolled_back"
else
  rm -f "$releases/rolled_back"
fi
[ -e "$releases/$version/complete" ]
# Noted before the switch, so that a crash between the two leaves a release to go back to.
if [ -n "$current" ] && [ "$current" != "$version" ]; then
  point "$current" "$releases/previous"
fi
point "$releases/$version/opt/kata" /opt/kata
for release in "$releases"/*/; do
  name=$(basename "$release")
  case $name in
    previous | downloads | "$version" | "$current") ;;
    *.old | *.part) if own_release "$releases/$name" kata; then rm -rf "$release"; fi ;;
    *) if own_release "$releases/$name" kata; then set_aside "$releases/$name" && rm -rf "$releases/$name.old"; fi ;;
  esac
done
