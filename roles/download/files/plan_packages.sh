#!/bin/sh
# Simulates an installation or a removal and prints what it would do, one line each: "unknown PACKAGE", "installs PACKAGE", or "removes
# PACKAGE" for one that is not named.
# Usage: plan_packages.sh FAMILY install|remove PACKAGE...
set -u
export LC_ALL=C
family=$1 action=$2
shift 2

apt() { apt-get --simulate --quiet "$action" "$@" 2>&1; }
# The packages under the headings that begin with a word, in dnf's table.
section() {
  awk -v heading="^$1" -v word="$2" '$0 ~ heading { inside = 1; next } /^[A-Z]/ { inside = 0 } inside && NF > 3 { print word " " $1 }'
}
# Leaves out the lines of the packages that are named.
others() {
  for package; do printf 'removes %s\n' "$package"; done >"$named"
  grep -vxF -f "$named"
}
named=$(mktemp)
trap 'rm -f "$named"' EXIT
unknown() { sed -nE "s/^E: Unable to locate package (.*)/unknown \\1/p; s/^E: Package '(.*)' has no installation candidate/unknown \\1/p" | sort -u; }

if [ "$family" = Debian ]; then
  output=$(apt "$@")
  # A fresh image of a distribution may know no packages yet.
  if printf '%s\n' "$output" | unknown | grep -q .; then
    apt-get --quiet update >/dev/null 2>&1
    output=$(apt "$@")
  fi
  printf '%s\n' "$output" | unknown
  printf '%s\n' "$output" | sed -n 's/^Inst \([^ ]*\) (.*/installs \1/p'
  printf '%s\n' "$output" | sed -n 's/^Remv \([^ ]*\).*/removes \1/p' | others "$@"
elif [ "$family" = RedHat ] && command -v dnf >/dev/null; then
  output=$(dnf --quiet --assumeno "$action" "$@" 2>&1)
  printf '%s\n' "$output" | sed -n 's/^\(Error: Unable to find a match\|No match for argument\): *\([^ ]*\).*/unknown \2/p' | sort -u
  printf '%s\n' "$output" | section Installing installs
  printf '%s\n' "$output" | section Removing removes | others "$@"
  # Without --allowerasing dnf refuses to replace another package, which it calls a conflict.
  printf '%s\n' "$output" | sed -nE 's/.*package ([^ ]+) .*(conflicts with|obsoletes) .* provided by ([^ ]+) from @System.*/removes \3/p' | sort -u
fi
exit 0
