#!/bin/sh
# Simulates an installation and prints what stands against it, one line each: "unknown PACKAGE" or "removes PACKAGE".
# Usage: plan_packages.sh FAMILY PACKAGE...
set -u
export LC_ALL=C
family=$1
shift

apt() { apt-get --simulate --quiet install "$@" 2>&1; }
unknown() { sed -nE "s/^E: Unable to locate package (.*)/unknown \\1/p; s/^E: Package '(.*)' has no installation candidate/unknown \\1/p" | sort -u; }

if [ "$family" = Debian ]; then
  output=$(apt "$@")
  # A fresh image of a distribution may know no packages yet.
  if printf '%s\n' "$output" | unknown | grep -q .; then
    apt-get --quiet update >/dev/null 2>&1
    output=$(apt "$@")
  fi
  printf '%s\n' "$output" | unknown
  printf '%s\n' "$output" | sed -n 's/^Remv \([^ ]*\).*/removes \1/p'
elif [ "$family" = RedHat ] && command -v dnf >/dev/null; then
  output=$(dnf --quiet --assumeno install "$@" 2>&1)
  printf '%s\n' "$output" | sed -n 's/^\(Error: Unable to find a match\|No match for argument\): *\([^ ]*\).*/unknown \2/p' | sort -u
  printf '%s\n' "$output" | awk '/^Removing/ { removing = 1; next } /^[A-Z]/ { removing = 0 } removing && NF > 3 { print "removes " $1 }'
  # Without --allowerasing dnf refuses to replace another package, which it calls a conflict.
  printf '%s\n' "$output" | sed -nE 's/.*package ([^ ]+) .*(conflicts with|obsoletes) .* provided by ([^ ]+) from @System.*/removes \3/p' | sort -u
fi
exit 0
