#!/bin/sh
# Judges a configuration by the containerd that will read it, an unknown key being an error. Usage: accept CONTAINERD ROOT|- CANDIDATE
# With ROOT the candidate is a drop-in, judged as it will be read: after the root and its imports.
containerd=$1 root=$2 candidate=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cp "$candidate" "$work/candidate.toml"
if [ "$root" = - ]; then
  file=$work/candidate.toml
else
  file=$work/root.toml
  # containerd refuses an import whose version is higher than the file's that imports it.
  version=$(sed -n 's/^ *version *= *\([0-9]*\).*/\1/p' "$root" | head -n 1)
  printf 'version = %s\nimports = ["%s", "%s"]\n' "${version:-1}" "$root" "$work/candidate.toml" >"$file"
fi
output=$("$containerd" --config "$file" config dump 2>&1 >/dev/null)
status=$?
if [ "$status" -ne 0 ] || printf '%s' "$output" | grep -qi 'unknown key'; then
  printf '%s refuses the new configuration, and the old one stays: %s\n' "$containerd" "$(printf '%s' "$output" | tail -n 1)" >&2
  exit 1
fi
