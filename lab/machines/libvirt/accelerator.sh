#!/usr/bin/env bash
# Prints kvm where a kernel boots under KVM, else qemu, which emulates. Usage: accelerator.sh [KERNEL]
# /dev/kvm alone is no proof: under some hypervisors it opens, and a guest hangs in its boot loader.
set -euo pipefail
kernel=${1:-$(find /boot -name 'vmlinuz-*' | head -n 1)}
console=$(mktemp)
trap 'rm -f "$console"' EXIT

qemu-system-x86_64 -accel kvm -cpu host -m 256 -nodefaults -display none -no-reboot -serial "file:$console" \
  -kernel "$kernel" -append 'console=ttyS0 panic=-1' >/dev/null 2>&1 &
machine=$!
disown "$machine"
for _ in $(seq 100); do
  sleep 0.1
  # Without a root file system a kernel ends there.
  if grep -q 'Unable to mount root' "$console" 2>/dev/null; then found=kvm && break; fi
  kill -0 "$machine" 2>/dev/null || break
done
kill "$machine" 2>/dev/null || true
echo "${found:-qemu}"
