# shellcheck shell=sh
# Starts or restarts containerd and waits until its plugins are ready. Goes behind list_containers.sh.
# Usage: start_containerd BIN start|restart FORCE FILTER PLUGIN... with CONTAINERD_UNIT, CONTAINERD_ADDRESS for ctr, CONTAINERD_ROOT, and in
# CONTAINERD_DATA the file that lists the directories whose content is this containerd's alone, which a removal deletes.
# Prints "busy COUNT" instead of restarting under containers, "missing PLUGIN" for a plugin that does not get ready, "failed REASON".
exec 2>/dev/null
bin=$1 action=$2 force=$3 filter=$4
shift 4
if [ "$action" = restart ] && [ "$force" != true ]; then
  count=$(list_containers "$bin/ctr" restart "$filter" | grep -c .)
  if [ "$count" -gt 0 ]; then
    echo "busy $count"
    exit 0
  fi
fi
if [ -n "$CONTAINERD_DATA" ] && ! find "$CONTAINERD_ROOT" -mindepth 1 -maxdepth 1 ! -name lost+found | grep -q .; then
  grep -qxF "data $CONTAINERD_ROOT" "$CONTAINERD_DATA" || {
    echo "data $CONTAINERD_ROOT"
    directory=$CONTAINERD_ROOT
    # containerd takes its permissions from others.
    [ ! -e "$directory" ] || echo "mode $(stat -c %a "$directory") $directory"
    until [ -e "$directory" ]; do echo "created $directory" && directory=${directory%/*}; done
  } >>"$CONTAINERD_DATA"
fi
{
  systemctl daemon-reload
  systemctl enable "$CONTAINERD_UNIT"
  systemctl "$action" "$CONTAINERD_UNIT"
} >/dev/null 2>&1 || {
  echo "failed $(journalctl --unit "$CONTAINERD_UNIT" --output cat --lines 1 --no-pager 2>/dev/null)"
  exit 0
}
tries=0
while
  ready=$("$bin/ctr" plugins ls 2>/dev/null | awk '$NF == "ok" { print $2 }')
  missing=$(for plugin; do printf '%s\n' "$ready" | grep -qxF "$plugin" || echo "missing $plugin"; done)
  [ -n "$missing" ] && [ "$tries" -lt 60 ]
do
  tries=$((tries + 1))
  sleep 0.5
done
if [ -n "$missing" ]; then printf '%s\n' "$missing"; fi
