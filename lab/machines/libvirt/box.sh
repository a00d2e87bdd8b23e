#!/usr/bin/env bash
# Builds the Vagrant box of a bare Debian host from the distribution's packages, once per content of this script: no box registry is needed.
# Usage: box.sh DIRECTORY. Prints the box's directory below DIRECTORY, which has package.box, vmlinuz, initrd and the SSH key.
set -euo pipefail

suite=bookworm
packages=systemd-sysv,udev,dbus,openssh-server,python3,python3-apt,sudo,ca-certificates,iproute2,kmod,linux-image-amd64,e2fsprogs,fdisk,lvm2,thin-provisioning-tools,zstd
target=$1/debian-$suite-$(sha256sum "${BASH_SOURCE[0]}" | cut -c1-12)
# mmdebstrap mounts /proc and /sys below the work directory: a second build that clears it away would walk into them.
mkdir -p "$1"
exec 9>"$1/lock"
flock 9
if [ -e "$target/package.box" ]; then
  echo "$target"
  exit
fi

say() { printf '==> %s\n' "$*" >&2; }
for program in mmdebstrap mke2fs qemu-img ssh-keygen; do
  command -v "$program" >/dev/null || { echo "$program is not installed. Run: apt-get install mmdebstrap e2fsprogs qemu-utils openssh-client" >&2; exit 1; }
done

work=$target.part
rm -rf --one-file-system "$work"
mkdir -p "$work"
ssh-keygen -q -t ed25519 -N '' -C kata-box -f "$work/key"

# An initramfs takes more than ten minutes under emulation, so a package that is installed later must not make one.
customize() {
  local root=$1
  echo 'update_initramfs=no' >"$root/etc/initramfs-tools/update-initramfs.conf"
  echo node1 >"$root/etc/hostname"
  # Without its own name here every sudo waits for DNS.
  printf '127.0.0.1 localhost node1\n' >"$root/etc/hosts"
  # No name is looked up there.
  : >"$root/etc/resolv.conf"
  # Interface names differ between QEMU and libvirt.
  printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n' >"$root/etc/systemd/network/10-dhcp.network"
  printf '/dev/vda / ext4 errors=remount-ro 0 1\n' >"$root/etc/fstab"
  chroot "$root" useradd --create-home --shell /bin/bash vagrant
  echo 'vagrant ALL=(ALL) NOPASSWD: ALL' >"$root/etc/sudoers.d/vagrant"
  install -d -m 700 -o 1000 -g 1000 "$root/home/vagrant/.ssh"
  install -m 600 -o 1000 -g 1000 "$KEY.pub" "$root/home/vagrant/.ssh/authorized_keys"
  printf 'UseDNS no\n' >"$root/etc/ssh/sshd_config.d/box.conf"
  chroot "$root" systemctl enable systemd-networkd >/dev/null 2>&1
  chroot "$root" systemctl mask apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer >/dev/null 2>&1
}

say "Building a Debian $suite box (once)"
started=$SECONDS
export KEY=$work/key
mmdebstrap --quiet --variant=apt --include="$packages" \
  --customize-hook="$(declare -f customize); customize \"\$1\"" "$suite" "$work/root"
say "  packages: $((SECONDS - started)) s"
cp "$work"/root/boot/vmlinuz-* "$work/vmlinuz"
cp "$work"/root/boot/initrd.img-* "$work/initrd"
mke2fs -q -t ext4 -L root -d "$work/root" "$work/disk.raw" 10G
qemu-img convert -c -O qcow2 "$work/disk.raw" "$work/box.img"
rm -rf "$work/root" "$work/disk.raw"
echo '{"provider": "libvirt", "format": "qcow2", "virtual_size": 10}' >"$work/metadata.json"
echo 'Vagrant.configure("2") { |config| }' >"$work/Vagrantfile"
tar -C "$work" -cf "$work/package.box" metadata.json Vagrantfile box.img
rm "$work/box.img" "$work/metadata.json" "$work/Vagrantfile"
mv "$work" "$target"
say "  image: $((SECONDS - started)) s"
echo "$target"
