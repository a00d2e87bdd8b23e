# shellcheck shell=sh
# Prints what the role wants to know of a host. Goes behind probe_functions.sh, probe_installer.sh and releases.sh.
# Usage: probe RELEASES RELEASE
releases=$1 release=$2
crictl=/usr/local/bin/crictl
is_linked() { [ "$(readlink "$releases/current")" = "$release" ] && [ "$(readlink "$crictl")" = "$releases/current/crictl" ]; }
detect_installer
printf '{%s, %s, "complete": %s, "linked": %s, "files": %s, "answers": %s, %s}\n' "$(host)" "$(installer)" \
  "$(cat "$release/complete" 2>/dev/null | list)" "$(flag is_linked)" "$(digests /etc/crictl.yaml)" "$(flag "$crictl" info)" \
  "$(directory "$releases" crictl "$crictl")"
