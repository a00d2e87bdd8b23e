#!/bin/sh
# Prints the files, packages, units and disks of a node. Two listings are compared to check that a node is as it was before the roles.
export LC_ALL=C
directories='/etc /home /opt /root /srv /usr/local /var/lib'
# Left out: histories that packages, systemd, LVM and CNI plugins write.
skip='/var/lib/apt /var/lib/cni /var/lib/dpkg /var/lib/systemd /etc/lvm/archive /etc/lvm/backup /root/.ansible /home/vagrant/.ansible'
prune=$(for path in $skip; do printf -- '-path %s -prune -o ' "$path"; done)
# shellcheck disable=SC2086  # The words are arguments of find.
find $directories -xdev $prune -printf '%p %y %m %u:%g %l\n' | sort
# shellcheck disable=SC2086
find $directories -xdev $prune -type f -print0 | sort -z | xargs -0 sha256sum
dpkg-query --show --showformat '${Package} ${Version} ${Status}\n'
systemctl list-unit-files --no-legend --no-pager | sort
systemctl list-units --failed --no-legend --no-pager --plain
lsblk --noheadings --list --output NAME,TYPE,SIZE,FSTYPE,MOUNTPOINT
# A container has neither.
dmsetup ls 2>/dev/null
vgs --noheadings 2>/dev/null
exit 0
