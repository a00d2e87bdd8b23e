# shellcheck shell=sh
# Prints what the role wants to know of a host. Goes behind probe_functions.sh, probe_installer.sh and releases.sh.
# Usage: probe RELEASES VERSION [SHIPPED HANDLER]...
# SHIPPED is a configuration below the release, HANDLER the handler that it is copied for.
releases=$1 version=$2
shift 2
release=$releases/$version/opt/kata

# Not every module that is built in has a directory in /sys/module.
present() { [ -e "/sys/module/$1" ] || grep -qs "/$1\.ko" "/lib/modules/$(uname -r)/modules.builtin"; }
missing_modules() {
  for module in vhost_vsock vhost_net; do
    present "$module" || modprobe -n "$module" 2>/dev/null || echo "$module"
  done
}
modules() { present vhost_vsock && present vhost_net; }
# A link to a release of the role's has the releases in its target.
is_foreign() { [ -e /opt/kata ] && [ ! -L /opt/kata ]; }
# What containerd finds by the name of the runtime, where it is the role's.
shim() { readlink /usr/local/bin/containerd-shim-kata-v2 | grep "^$releases/"; }
current() { case $(readlink /opt/kata) in "$releases"/*) linked /opt/kata ;; esac; }
shipped() {
  printf '{'
  separator=
  while [ "$#" -gt 1 ]; do
    if [ -f "$release/$1" ]; then
      printf '%s"%s": "%s"' "$separator" "$2" "$(encoded "$release/$1")"
      separator=,
    fi
    shift 2
  done
  printf '}'
}
own_files() {
  set -- /etc/modules-load.d/screwdriver-kata.conf /etc/systemd/system/screwdriver-kata-shm.service \
    /etc/systemd/system/screwdriver-kata-clean-up.service /etc/systemd/system/screwdriver-kata-clean-up.timer \
    /usr/local/sbin/screwdriver-kata-clean-up
  for file in "$release"/handlers/*/configuration.toml "$release"/handlers/*/config.d/50-screwdriver.toml; do set -- "$@" "$file"; done
  digests "$@"
}

detect_installer
printf '{%s, %s, "cpu": %s, "kvm": %s, "foreign": %s, ' "$(host)" "$(installer)" \
  "$(flag grep -m1 -wE 'vmx|svm' /proc/cpuinfo)" "$(flag test -c /dev/kvm)" "$(flag is_foreign)"
printf '"current": "%s", "previous": "%s", "rolled_back": %s, ' \
  "$(current)" "$(linked "$releases/previous")" "$(flag test -e "$releases/rolled_back")"
printf '"shim": "%s", %s, ' "$(shim)" "$(directory "$releases" kata /opt/kata)"
printf '"modules": %s, "missing_modules": %s, "zst": %s, "xz": %s, ' \
  "$(flag modules)" "$(missing_modules | list)" "$(flag command -v zstd)" "$(flag command -v xz)"
printf '"complete": %s, "files": %s, "shipped": %s}\n' \
  "$(cat "$releases/$version/complete" 2>/dev/null | list)" "$(own_files)" "$(shipped "$@")"
