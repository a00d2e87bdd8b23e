# shellcheck shell=sh
# Functions for the probes of the roles, which print one JSON object: one round trip instead of a task for each question.
# Over a terminal both streams are one, and a warning would be in the middle of the object.
exec 2>/dev/null
# Programs print decimal points and English messages.
export LC_ALL=C
# Programs of the roles lie here, and not every sudo looks there.
PATH=/usr/local/sbin:/usr/local/bin:$PATH

flag() { if "$@" >/dev/null 2>&1; then printf true; else printf false; fi; }
# The lines of standard input as a list.
list() { awk 'BEGIN { printf "[" } { printf "%s\"%s\"", (NR > 1 ? "," : ""), $0 } END { printf "]" }'; }
# A file in Base64.
encoded() { if [ -f "$1" ]; then base64 -w 0 <"$1"; fi; }
# Digest, mode and owner of each file, by path.
digests() {
  printf '{'
  separator=
  for file; do
    [ -f "$file" ] || continue
    printf '%s"%s": "%s %s"' "$separator" "$file" "$(sha256sum <"$file" | cut -c1-64)" "$(stat -c '%a:%u' "$file")"
    separator=,
  done
  printf '}'
}
# The directory name of the release that a link points to.
linked() { target=$(readlink "$1") && basename "${target%/opt/kata}"; }
family() {
  id='' like=''
  while IFS='=' read -r key value; do
    value=${value#\"} value=${value%\"}
    case $key in ID) id=$value ;; ID_LIKE) like=$value ;; esac
  done </etc/os-release
  case " $id $like " in
    *' debian '* | *' ubuntu '*) echo Debian ;;
    *' rhel '* | *' fedora '* | *' centos '*) echo RedHat ;;
    *) echo "$id" ;;
  esac
}
distribution() { sed -n 's/^PRETTY_NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p; s/^NAME="\{0,1\}\([^"]*\)"\{0,1\}$/\1/p' /etc/os-release | tail -n 1; }
host() { printf '"architecture": "%s", "family": "%s", "distribution": "%s"' "$(uname -m)" "$(family)" "$(distribution)"; }
