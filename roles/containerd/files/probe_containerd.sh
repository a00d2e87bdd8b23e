# shellcheck shell=sh
# Prints what the role wants to know of a host. Goes behind probe_functions.sh, probe_installer.sh and releases.sh.
# Usage: probe RELEASES BIN RELEASE REGISTRY
releases=$1 bin=$2 release=$3 registry=$4
config=/etc/containerd
units=/etc/systemd/system
detect_installer
# shellcheck disable=SC2154  # It sets what it has found.
{
  unit=$containerd_unit own=$config managed=$containerd_managed
  if [ "$managed" = true ]; then bin=$containerd_bin own=${containerd_config%/*}; fi
  export CONTAINERD_ADDRESS="$containerd_socket"
}

started=$(systemctl show -p ActiveEnterTimestamp --value "$unit" 2>/dev/null)
active() { systemctl is-active --quiet "$unit"; }
# The absolute paths that the configuration names, those of imports and of registries among them.
# shellcheck disable=SC2154  # detect_installer sets it.
named() { grep -oE "[\"'][^\"']*[\"']" "$containerd_config" | tr -d "\"'" | tr ':' '\n' | grep '^/'; }
# The directories of drop-ins.
imports() {
  { for directory in "$own"/*.d; do echo "$directory"; done; named | grep -F '*' | sed 's|/[^/]*$||'; } | sort -u
}
# Where the role's files lie that are not below the directory of the configuration.
elsewhere() {
  imports | sed 's|$|/screwdriver-kata.toml|'
  for directory in $(named) "$registry"; do for file in "$directory"/*/hosts.toml; do echo "$file"; done; done
}
# What containerd read at its start is older than this, or else it runs on something else than what is on the disk.
stale() {
  # shellcheck disable=SC2046  # Names without spaces.
  active && [ -n "$started" ] && find "$config" "$own" $(imports | sed 's|$|/screwdriver-kata.toml|') "$units/containerd.service" "$units/containerd.service.d" "$releases/current" \
    -newermt "$started + 1 second" \( -type f -o -type l \) ! -path '*/certs.d/*' ! -name '*.screwdriver-kata-backup' 2>/dev/null | grep -q .
}
# The programs are where the system looks, and of the release that is asked for.
is_linked() {
  [ "$(readlink "$releases/current")" = "$release" ] || return
  for place in /usr/local/bin/containerd /usr/local/bin/ctr /usr/local/bin/containerd-shim-runc-v2; do
    [ "$(readlink "$place")" = "$releases/current/bin/${place##*/}" ] || return
  done
  [ "$(readlink /usr/local/sbin/runc)" = "$releases/current/bin/runc" ] || return
  for plugin in "$release"/cni/*; do
    case ${plugin##*/} in LICENSE | README.md) continue ;; esac
    [ "$(readlink "/opt/cni/bin/${plugin##*/}")" = "$releases/current/cni/${plugin##*/}" ] || return
  done
}
# The configuration is the package's and unchanged.
is_pristine() {
  [ "$managed" = false ] && [ -f "$config/config.toml" ] || return
  digest=$(md5sum <"$config/config.toml" | cut -c1-32)
  if command -v dpkg-query; then
    dpkg-query --show --showformat '${Conffiles}\n' containerd | grep -qF "$config/config.toml $digest"
  else
    rpm --query --file "$config/config.toml" && ! rpm --verify --file "$config/config.toml" | grep -q "$config/config.toml"
  fi
}
# What a removal leaves because it was there before: directories in which the role creates one, and the content of containerd's own.
before() {
  find /etc/containerd /etc/cni /opt/cni /opt/containerd "$units/containerd.service.d" "${registry%%:*}" -maxdepth 2 -type d \
    -printf 'directory %p\n' | sort -u
  if find /var/lib/containerd -mindepth 1 -maxdepth 1 ! -name lost+found | grep -q .; then echo content /var/lib/containerd; fi
}
# Each line that a script of sed makes of a drop-in of others, behind its file.
in_drop_ins() {
  for directory in $(imports); do
    for file in "$directory"/*.toml; do
      [ "${file##*/}" = screwdriver-kata.toml ] || sed -nE "$1" "$file" | while read -r line; do echo "$file $line"; done
    done
  done
}
# The handlers in them, and what they set of devmapper.
others() { in_drop_ins "s#^ *\[ *plugins\..*\.containerd\.runtimes\.['\"]?([A-Za-z0-9_.-]*[A-Za-z0-9_-])['\"]? *\].*#\1#p"; }
pools() {
  in_drop_ins "/^ *\[ *plugins\.['\"]?io\.containerd\.snapshotter\.v1\.devmapper['\"]? *\]/,/^ *\[/ \
    s#^ *(pool_name|root_path) *= *['\"]([^'\"]+)['\"].*#\1 \2#p"
}
plugins() { "$bin/ctr" plugins ls 2>/dev/null | awk '$NF == "ok" { print $2 }'; }

printf '{%s, %s, "config": "%s", "written": "%s", "complete": %s, "linked": %s, ' \
  "$(host)" "$(installer)" "$(encoded "$containerd_config")" "$(encoded "$releases/config.toml")" \
  "$(cat "$release/complete" 2>/dev/null | list)" "$(flag is_linked)"
own_files() {
  find "$config" "$own" "$units/containerd.service" "$units/containerd.service.d" "$releases/config.toml" "$releases/record" -maxdepth 3 \
    -type f ! -name '*.screwdriver-kata-backup' ! -name '*~' 2>/dev/null
  elsewhere
}
printf '"files": %s, ' "$(own_files | sort -u | { set --; while read -r file; do set -- "$@" "$file"; done; digests "$@"; })"
printf '"pristine": %s, "others": %s, "pools": %s, ' "$(flag is_pristine)" "$(others | list)" "$(pools | list)"
printf '"record": %s, "before": %s, %s, ' "$(cat "$releases/record" 2>/dev/null | list)" "$(before | list)" \
  "$(directory "$releases" containerd /usr/local/bin/containerd)"
printf '"spec": %s, "plugins": %s, ' "$("$bin/ctr" oci spec 2>/dev/null || printf null)" "$(plugins | list)"
printf '"enabled": %s, "active": %s, "stale": %s, "package": "%s"}\n' \
  "$(flag systemctl is-enabled --quiet "$unit")" "$(flag active)" "$(flag stale)" \
  "$("$bin/containerd" --version 2>/dev/null | awk '{ sub(/^v/, "", $3); print $3 }')"
