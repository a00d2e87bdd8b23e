# shellcheck shell=sh
# Prints the containers that stand against an action, as NAMESPACE/ID.
# Usage: list_containers CTR restart|remove FILTER
# A restart does not count pods of Kubernetes without the labels of FILTER, if there is one; a removal counts stopped containers of
# others than Kubernetes as well, since their files go too.
list_containers() {
  ctr=$1 action=$2 filter=$3
  namespaces=$("$ctr" namespaces list --quiet) || {
    # A containerd that is stopped leaves its shims running.
    if [ "$action" = remove ]; then pgrep -x containerd-shim | sed 's|^|process/|'; fi
    return 0
  }
  for namespace in $namespaces; do
    tasks=$("$ctr" --namespace "$namespace" tasks list --quiet)
    if [ "$namespace" = k8s.io ]; then
      if [ "$action" = restart ] && [ -n "$filter" ]; then
        builds=$("$ctr" --namespace "$namespace" containers list --quiet "$filter")
        tasks=$(printf '%s\n' "$tasks" | grep -xF "${builds:-none}")
      fi
    elif [ "$action" = remove ]; then
      tasks=$("$ctr" --namespace "$namespace" containers list --quiet)
    fi
    printf '%s\n' "$tasks" | sed -n "s|^\(..*\)|$namespace/\1|p"
  done
}
