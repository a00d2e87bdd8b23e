# shellcheck shell=sh
# Prints the number and the program of each process that runs from a release of the role. Another Kata's, such as kata-deploy's in /opt/kata
# or /opt/kata-SUFFIX, have their programs elsewhere. Usage: list_processes RELEASES
list_processes() {
  find /proc/[0-9]*/exe -maxdepth 0 -lname "$(readlink -f "$1" || echo "$1")/*" -printf '%h %l\n' 2>/dev/null | sed 's|^/proc/||'
}
