"""thin_pool on a real machine; the pool is inspected with LVM's, device mapper's and systemd's own tools."""

from __future__ import annotations

import json
import shlex
import typing as t

import pytest

from ..helpers import wait_until

if t.TYPE_CHECKING:
    from .conftest import Node

MIB = 2**20
CLEAN = """
shopt -s nullglob
systemctl stop containerd
umount -R /mnt/test-* 2>/dev/null
for name in $(dmsetup ls --target thin | awk '/^(test|kata)/ {print $1}') $(dmsetup ls --target linear | awk '/^test/ {print $1}'); do
  dmsetup remove --retry "$name"
done
for group in kata test-other; do vgchange -q -an "$group"; vgremove -q -q --force --force --yes "$group"; done 2>/dev/null
for loop in $(losetup --noheadings --output NAME --associated /var/tmp/test-pool.img); do losetup --detach "$loop"; done
for disk in %s; do wipefs --quiet --all "$disk"?* "$disk"; done
rm -rf /var/lib/screwdriver.kata /etc/lvm/profile/screwdriver-kata-*
for unit in /etc/systemd/system/screwdriver-kata-loop-*; do systemctl disable --quiet "${unit##*/}"; rm "$unit"; done
for unit in /etc/systemd/system/screwdriver-kata-watch-*; do systemctl disable --quiet --now "${unit##*/}"; rm "$unit"; done
rm -rf /usr/local/sbin/screwdriver-kata-watch-* /run/screwdriver-kata-watch-*
[ -e /etc/lvm/lvm.conf.test ] && mv /etc/lvm/lvm.conf.test /etc/lvm/lvm.conf
rm -f /var/tmp/test-pool.img /etc/modules-load.d/screwdriver-kata-* /etc/systemd/system/containerd.service.d/20-screwdriver-kata-*
systemctl daemon-reload
udevadm settle
"""
# Stands before a tool on PATH, and kills the tool and the module that called it once a command of it has run for a while.
KILLER = """#!/bin/bash
[[ $1 == "%(command)s" ]] || exec /usr/sbin/%(tool)s "$@"
/usr/sbin/%(tool)s "$@" &
sleep %(delay)s
kill -9 $! $PPID
"""


@pytest.fixture(autouse=True)
def clean(node: Node, disks: list[str]) -> t.Iterator[None]:
    node.run(CLEAN % " ".join(disks), check=False)
    yield
    node.run(CLEAN % " ".join(disks), check=False)


def reported(node: Node, name: str = "pool", group: str = "kata") -> dict[str, t.Any]:
    """The pool as LVM reports it."""
    fields = "lv_size,lv_metadata_size,chunk_size,zero,seg_monitor,lv_profile,lv_active,lv_when_full,vg_seqno"
    out = node.run(f"lvs --reportformat json --units m --nosuffix -o {fields} {group}/{name}")
    return json.loads(out)["report"][0]["lv"][0]


def volumes(node: Node) -> list[str]:
    return sorted(node.run("lvs -a --noheadings -o lv_name kata").split())


def untouched(node: Node, disks: list[str]) -> str:
    """Everything about the disks that a module could change."""
    return node.run(
        f"for disk in {' '.join(disks)}; do head -c 4M $disk | sha256sum; done; vgs --noheadings -o vg_name,vg_seqno; "
        "ls /etc/lvm/profile; ls /var/lib"
    )


def test_life(node: Node, disks: list[str]) -> None:
    one, two = disks[:2]
    before = untouched(node, disks)
    predicted = node.module("thin_pool", check=True, devices=[one])
    assert predicted["changed"] is True
    assert predicted["diff"]["before"] == {}
    assert untouched(node, disks) == before

    made, again = node.modules("thin_pool", {"devices": [one]}, {"devices": [one]})
    assert made["changed"] is True
    assert again["changed"] is False
    assert again["diff"]["before"] == made["diff"]["after"]
    assert made["diff"] == predicted["diff"]
    assert made["steps"] == predicted["steps"]
    assert again["steps"] == []
    percents = {"data_percent": 0.0, "metadata_percent": 0.0}
    assert made["pool"] | percents == predicted["pool"] | percents
    look = reported(node)
    assert look["zero"] == ""
    assert look["seg_monitor"] == "monitored"
    assert look["lv_active"] == "active"
    assert look["lv_when_full"] == "queue"
    assert (
        int(float(look["lv_size"]) * MIB)
        == made["pool"]["size_bytes"]
        == made["pool"]["volume_group_size_bytes"] * 8 // 10 // (4 * MIB) * (4 * MIB)
    )
    assert float(look["lv_metadata_size"]) == 64
    assert float(look["chunk_size"]) == 0.5
    assert "thin-pool" in node.run(f"dmsetup status {made['pool']['device']}")
    assert "thin_pool_autoextend_threshold=75\n\tthin_pool_autoextend_percent=20" in node.run(
        f"cat /etc/lvm/profile/{look['lv_profile']}.profile"
    )

    # Grown by a device, more metadata and other thresholds, in check mode first; named by another path and twice.
    node.run(f"ln -sfn {two} /dev/test-alias")
    more = {"devices": [one, "/dev/test-alias", two], "metadata_size": "96MiB", "autoextend_threshold": 60}
    predicted = node.module("thin_pool", check=True, **more)
    assert reported(node) == look
    grown, again, shrunk, metadata, chunk, too_large = node.modules(
        "thin_pool", more, more, {"size": "1GiB"}, {"metadata_size": "64MiB"}, {"chunk_size": "128"}, {"size": "100GiB"}
    )
    assert grown["changed"] is True
    assert grown["diff"] == predicted["diff"]
    assert again["changed"] is False
    assert grown["pool"]["size_bytes"] > 1.9 * made["pool"]["size_bytes"]
    assert float(reported(node)["lv_metadata_size"]) == 96
    assert shrunk["msg"].startswith("size: thin pool kata/pool has ")
    assert shrunk["msg"].endswith(" and is never shrunk, but 1GiB is 1 GiB; ask for at least its size.")
    assert metadata["msg"] == (
        "metadata_size: thin pool kata/pool has 96 MiB of metadata and is never shrunk to 64 MiB; ask for at least its size."
    )
    assert chunk["msg"] == (
        "chunk_size: thin pool kata/pool has chunks of 512 KiB, which cannot be changed to 128 KiB; keep it, or remove the pool first."
    )
    assert too_large["msg"].startswith("size: 100GiB (100 GiB) does not fit into volume group kata, which has room for ")

    # A pool on a loop file beside it, and then a reboot.
    looped = {"volume_group": "test-other", "loop_file": "/var/tmp/test-pool.img", "loop_size": "1GiB"}
    first, second = node.modules("thin_pool", looped, looped)
    assert first["changed"] is True
    assert second["changed"] is False
    assert first["pool"]["device"] == "test--other-pool"
    look = reported(node)
    node.reboot()
    assert reported(node) == look
    assert reported(node, group="test-other")["seg_monitor"] == "monitored"
    kept, looped_again, gone = node.modules("thin_pool", more, looped, {**looped, "state": "absent"})
    assert kept["changed"] is False
    assert looped_again["changed"] is False
    assert gone["changed"] is True
    assert node.run("ls /var/tmp/test-pool.img /etc/systemd/system/screwdriver-kata-loop-*", check=False) == ""

    # A thin device that only the pool's metadata know, one that is mapped, one that is open.
    node.run("dmsetup message kata-pool 0 'create_thin 7'")
    known = node.module("thin_pool", state="absent")
    node.run("dmsetup create test-thin --table '0 65536 thin /dev/mapper/kata-pool 7'")
    mapped = node.module("thin_pool", state="absent")
    node.run("mkfs.ext4 -q /dev/mapper/test-thin && mkdir -p /mnt/test-thin && mount /dev/mapper/test-thin /mnt/test-thin")
    opened = node.module("thin_pool", state="absent", discard=True)
    sentence = (
        "Thin pool kata/pool has thin devices ({}) and is not removed; "
        "delete containerd's images and snapshots, or set discard to lose them."
    )
    assert [known["msg"], mapped["msg"]] == [sentence.format("7"), sentence.format("test-thin")]
    assert opened["msg"] == "Thin pool kata/pool has thin devices that are in use (test-thin) and is not removed; end what uses them first."
    node.run("umount /mnt/test-thin")
    tried = node.module("thin_pool", check=True, state="absent", discard=True)
    assert tried["changed"] is True
    assert tried["diff"]["after"] == {}
    assert reported(node)["lv_active"] == "active"
    removed, again = node.modules("thin_pool", {"state": "absent", "discard": True}, {"state": "absent"})
    assert removed["changed"] is True
    assert removed["diff"] == tried["diff"]
    assert again["changed"] is False
    assert untouched(node, []) == "\n".join(line for line in before.splitlines() if not line.endswith(" -"))
    assert node.run(f"wipefs --no-act {one} {two}") == ""


def test_device_with_content_is_refused(node: Node, disks: list[str]) -> None:
    one, two, three = disks
    node.run(
        f"mkfs.ext4 -q -L precious {one}; printf 'label: gpt\n,64M\n,64M\n' | sfdisk --quiet {two}; vgcreate -q test-other {three}; "
        "udevadm settle; rm -f /tmp/test-pipe; mkfifo /tmp/test-pipe"
    )
    before = untouched(node, disks)
    refused = [{"devices": [disk]} for disk in disks] + [
        {"devices": ["/dev/no-such"]},
        {"devices": ["/tmp/test-pipe"]},
        {"devices": [one], "wipe": True, "chunk_size": "100KiB"},
        {"devices": [one], "wipe": True, "autoextend_threshold": 120},
        {"devices": [one], "wipe": True, "size": "120%VG"},
        {"devices": [one], "wipe": True, "size": "100GiB"},
        {},
    ]
    messages = [result.get("msg") for result in node.modules("thin_pool", *refused)]
    assert messages[:3] == [
        f"Device {one} contains a signature of ext4 labelled precious; name an empty device, or set wipe to erase it.",
        f"Device {two} contains a gpt partition table and a PMBR partition table and 2 partitions; "
        "name an empty device, or set wipe to erase it.",
        f"Device {three} contains an LVM physical volume of volume group test-other; name an empty device, or set wipe to erase it.",
    ]
    assert messages[3:8] == [
        "devices: /dev/no-such does not exist; name a block device that `lsblk --paths` lists.",
        "devices: /tmp/test-pipe is not a block device; name one that `lsblk --paths` lists.",
        "chunk_size: '100KiB' is not a multiple of 64 KiB up to 1 GiB; use for example 512KiB.",
        "autoextend_threshold: 120 is not a percentage from 50 to 100; use for example 75.",
        "size: '120%VG' is not a percentage from 1 to 100; use for example 80%VG.",
    ]
    assert messages[8].startswith("size: 100GiB (100 GiB) does not fit into volume group kata, which has room for ")
    assert messages[9] == "devices: volume group kata does not exist; name at least one device to create it on."
    assert untouched(node, disks) == before

    # In use: refused even with wipe.
    node.run(
        f"mkdir -p /mnt/test-disk; mount {one} /mnt/test-disk; dmsetup create test-held --table '0 1024 linear {two} 2048'; "
        "lvcreate -q -n held -l 1 -Wn -Zn test-other"
    )
    messages = [result.get("msg") for result in node.modules("thin_pool", *({"devices": [disk], "wipe": True} for disk in disks))]
    end = "and is refused, even with wipe; "
    assert messages == [
        f"Device {one} is mounted at /mnt/test-disk {end}unmount it, or name another device.",
        f"Device {two} is in use by /dev/mapper/test-held {end}free it, or name another device.",
        f"Device {three} is in use by /dev/mapper/test--other-held {end}free it, or name another device.",
    ]
    assert "precious" in node.run(f"umount /mnt/test-disk; dmsetup remove test-held; vgchange -q -an test-other >/dev/null; blkid -p {one}")

    # Free: with wipe all three are accepted, and what is lost is in the diff.
    tried = node.module("thin_pool", check=True, devices=disks, wipe=True)
    made, again = node.modules("thin_pool", {"devices": disks, "wipe": True}, {"devices": disks, "wipe": True})
    assert made["changed"] is True
    assert again["changed"] is False
    assert made["diff"] == tried["diff"]
    assert made["diff"]["before"]["content"][one] == "a signature of ext4 labelled precious"
    assert node.run("vgs --noheadings -o vg_name,pv_count").split() == ["kata", "3"]

    # LVM thin volumes in the pool.
    node.run("lvcreate -q -V 64M -T kata/pool -n foreign")
    present, absent = node.modules("thin_pool", {}, {"state": "absent"})
    assert present["msg"] == (
        "Thin pool kata/pool has LVM thin volumes (foreign), and containerd needs a pool of its own; choose another name."
    )
    assert absent["msg"] == "Thin pool kata/pool has LVM thin volumes (foreign) and is not removed; remove them first."


def test_pool_that_fills_up(node: Node, disks: list[str]) -> None:
    one, two = disks[:2]
    # It extends itself, and is then as large as it should be.
    small = {"devices": [one], "size": "256MiB", "autoextend_threshold": 50, "autoextend_percent": 50}
    node.module("thin_pool", **small)
    node.run("dmsetup message kata-pool 0 'create_thin 1'; dmsetup create test-thin --table '0 8388608 thin /dev/mapper/kata-pool 1'")
    node.run(
        "head -c 160M /dev/urandom >/var/tmp/test-data; dd if=/var/tmp/test-data of=/dev/mapper/test-thin bs=1M oflag=direct status=none"
    )
    wait_until(lambda: float(reported(node)["lv_size"]) > 256, "dmeventd extends the pool", interval=2)
    after = node.module("thin_pool", **small)
    assert after["changed"] is False
    assert after["pool"]["size_bytes"] > 256 * MIB

    # A snapshot, then all of the data is taken: what more is written waits.
    node.run("dmsetup suspend test-thin; dmsetup message kata-pool 0 'create_snap 2 1'; dmsetup resume test-thin")
    filled = node.module("thin_pool", devices=[one], size="1GiB", autoextend_threshold=100)
    size = filled["pool"]["size_bytes"] // MIB
    node.run(
        f"timeout -s KILL 300 dd if=/dev/zero of=/dev/mapper/test-thin bs=1M seek=160 count={size - 100} oflag=direct status=none & sleep "
        "1",
        check=False,
    )
    wait_until(lambda: "out_of_data_space" in node.run("dmsetup status kata-pool"), "the pool is full", seconds=240, interval=1)
    grown = node.module("thin_pool", devices=[one, two], size="100%FREE", autoextend_threshold=100)
    assert grown["changed"] is True
    assert grown["pool"]["health"] == "ok"
    assert grown["pool"]["size_bytes"] // MIB > 1.8 * size
    assert " rw " in node.run("dmsetup status kata-pool")
    node.run("dmsetup create test-snap --table '0 8388608 thin /dev/mapper/kata-pool 2'; echo 1 >/proc/sys/vm/drop_caches")
    node.run(
        "for name in thin snap; do cmp --bytes=167772160 /var/tmp/test-data /dev/mapper/test-$name || exit 1; done; rm /var/tmp/test-data"
    )
    node.run("dd if=/dev/zero of=/dev/mapper/test-snap bs=1M count=8 oflag=direct status=none")


# Makes thin devices, each of which takes a block of the metadata, until nearly all of these are in use.
DEVICES = """
for number in $(seq 2 1000); do
  dmsetup message kata-pool 0 "create_thin $number"
  dmsetup status kata-pool | awk '{split($5, blocks, "/"); exit !(blocks[1] > 0.92 * blocks[2])}' && break
done
"""


def test_metadata_that_fill_up(node: Node, disks: list[str]) -> None:
    one = disks[0]
    small = {"devices": [one], "chunk_size": "64KiB", "metadata_size": "2MiB", "autoextend_threshold": 100}
    node.module("thin_pool", **small)
    node.run("dmsetup message kata-pool 0 'create_thin 1'; dmsetup create test-thin --table '0 8388608 thin /dev/mapper/kata-pool 1'")
    node.run(
        "head -c 1M /dev/urandom | tee /var/tmp/test-data | dd of=/dev/mapper/test-thin bs=1M iflag=fullblock oflag=direct status=none"
    )
    node.run(DEVICES)
    near = node.module("thin_pool", **small)
    assert near["changed"] is False
    assert 90 < near["pool"]["metadata_percent"] < 100
    assert near["pool"]["data_percent"] < 90
    variables = {f"thin_pool_{name}": value for name, value in small.items()}
    database = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
    node.run(f"mkdir -p {database}; touch {database}/kata-pool.db")
    refused = node.results(node.start([{"ansible.builtin.include_role": {"name": "screwdriver.kata.thin_pool"}, "vars": variables}]))[-1]
    assert refused["msg"] == (
        f"Thin pool kata/pool is nearly full: {near['pool']['data_percent']} % of its data (at most 90) and "
        f"{near['pool']['metadata_percent']} % "
        "of its metadata (at most 90) are in use; add a disk to thin_pool_devices, or delete images with `crictl rmi --prune`."
    )
    node.run(f"rm -r {database}")
    # Watched as it is by default, it helps itself.
    node.module("thin_pool", **{**small, "autoextend_threshold": 75, "autoextend_percent": 100})
    wait_until(lambda: float(node.run("lvs --noheadings -o metadata_percent kata/pool")) <= 75, "dmeventd extends the metadata", interval=2)
    node.run("echo 1 >/proc/sys/vm/drop_caches; cmp --bytes=1048576 /var/tmp/test-data /dev/mapper/test-thin && rm /var/tmp/test-data")
    node.run("dmsetup message kata-pool 0 'create_thin 2000'")


def killed(node: Node, tool: str, command: str, delay: float, **parameters: t.Any) -> None:
    """Kills the module and what it runs in the middle of a command, and fails where it does not come to that command."""
    script = shlex.quote(KILLER % {"tool": tool, "command": command, "delay": delay})
    node.run(f"echo {script} >/usr/local/sbin/{tool}; chmod +x /usr/local/sbin/{tool}")
    try:
        [result] = node.modules("thin_pool", parameters)
    finally:
        node.run(f"rm /usr/local/sbin/{tool}")
    assert result["failed"] is True, result
    assert "kata" not in result.get("msg", ""), result


def converges(node: Node, **parameters: t.Any) -> list[dict[str, t.Any]]:
    first, second = node.modules("thin_pool", parameters, parameters)
    assert not first["failed"], first["msg"]
    assert second["failed"] is False
    assert second["changed"] is False
    # Only the identities of the disks stay, where they have any.
    assert node.run("ls -A /var/lib/screwdriver.kata | grep -v -- '-disks.json$'", check=False) == ""
    assert "Suspended" not in node.run("dmsetup info -c --noheadings -o suspended")
    return [first, second]


def test_killed_while_it_makes(node: Node, disks: list[str]) -> None:
    one = disks[0]
    node.run(f"mkfs.ext4 -q {one}")
    asked = {"devices": [one], "wipe": True}
    killed(node, "wipefs", "--all", 0.01, **asked)
    for command, delay in [("vgcreate", 0.1), ("lvcreate", 0.1), ("lvcreate", 0.3)]:
        killed(node, "lvm", command, delay, **asked)
    [first, _second] = converges(node, **asked)
    assert first["pool"]["monitored"]
    assert volumes(node) == ["[lvol0_pmspare]", "[pool_tdata]", "[pool_tmeta]", "pool"]
    node.run("vgck kata && dmsetup message kata-pool 0 'create_thin 1'")


def test_killed_while_it_grows_and_removes(node: Node, disks: list[str]) -> None:
    one, two = disks[:2]
    node.module("thin_pool", devices=[one])
    asked = {"devices": [one, two], "metadata_size": "96MiB"}
    for command, delay in [("vgextend", 0.1), ("lvextend", 0.2)]:
        killed(node, "lvm", command, delay, **asked)
    [_first, second] = converges(node, **asked)
    assert second["pool"]["metadata_size_bytes"] == 96 * MIB
    assert second["pool"]["size_bytes"] == second["pool"]["volume_group_size_bytes"] * 8 // 10 // (4 * MIB) * (4 * MIB)
    assert volumes(node) == ["[lvol0_pmspare]", "[pool_tdata]", "[pool_tmeta]", "pool"]
    for command, delay in [("lvremove", 0.1), ("vgremove", 0.1)]:
        killed(node, "lvm", command, delay, state="absent")
    converges(node, state="absent")
    assert node.run(f"wipefs --no-act {one} {two}; ls /etc/lvm/profile/screwdriver-kata-* 2>/dev/null", check=False) == ""


def test_killed_between_two_writes_of_lvm(node: Node, disks: list[str]) -> None:
    """A physical volume marked as used that no volume group has: an LVM that is killed leaves one, here another volume group does."""
    one, two, three = disks
    node.module("thin_pool", devices=[one])
    asked = {"devices": [one, two]}

    def lose_group() -> None:
        node.run(
            f"wipefs -q --all {two}; pvcreate -q --metadatacopies 0 {two}; vgcreate -q test-other {three} {two}; wipefs -q --all {three}"
        )
        assert node.run(f"pvs --noheadings -o vg_name {two} 2>/dev/null") == "[unknown]"

    lose_group()
    assert node.module("thin_pool", **asked)["msg"] == (
        f"Device {two} contains an LVM physical volume of an unknown volume group; name an empty device, or set wipe to erase it."
    )
    node.run(f"wipefs -q --all {two}")
    killed(node, "lvm", "vgextend", 0, **asked)
    lose_group()
    converges(node, **asked)
    killed(node, "lvm", "vgremove", 0, state="absent")
    node.run("vgremove -q -q --yes kata")
    lose_group()
    converges(node, state="absent")
    assert node.run(f"wipefs --no-act {one} {two}") == ""


def test_killed_before_its_volume_is_a_pool(node: Node, disks: list[str]) -> None:
    """LVM makes the pool's metadata from a linear volume of the pool's name: made here by hand, as a kill at that moment leaves it."""
    one = disks[0]

    def half() -> None:
        killed(node, "lvm", "lvcreate", 0, devices=[one])
        node.run("lvremove -q -q --yes kata; lvcreate -q -q --yes --name pool --extents 16 --addtag screwdriver.kata kata")
        assert volumes(node) == ["pool"]

    half()
    converges(node, devices=[one])
    assert volumes(node) == ["[lvol0_pmspare]", "[pool_tdata]", "[pool_tmeta]", "pool"]
    node.module("thin_pool", state="absent")
    half()
    converges(node, state="absent")
    assert node.run(f"wipefs --no-act {one}; vgs --noheadings") == ""


def test_pool_that_lvms_filter_hides(node: Node, disks: list[str]) -> None:
    one = disks[0]
    node.module("thin_pool", devices=[one])
    node.run("vgchange -q -an kata; cp /etc/lvm/lvm.conf /etc/lvm/lvm.conf.test")
    node.run(f"""echo 'devices/global_filter = [ "r|^{one}$|" ]' >>/etc/lvm/lvm.conf""")
    before = node.run(f"head -c 4M {one} | sha256sum")
    assert node.run("pvs --noheadings") == ""
    asked = {"devices": [one], "wipe": True}
    messages = [result.get("msg") for result in node.modules("thin_pool", asked, {"state": "absent"})]
    assert (
        messages
        == [
            f"Volume group kata is on {one}, which LVM's devices file or filter hides; add it with `lvmdevices --adddev {one}`, or "
            "correct filter and global_filter in /etc/lvm/lvm.conf."
        ]
        * 2
    )
    assert node.run(f"head -c 4M {one} | sha256sum") == before
    node.run("mv /etc/lvm/lvm.conf.test /etc/lvm/lvm.conf")
    [again, _second] = converges(node, **asked)
    assert again["pool"]["active"]


def test_names_that_another_disk_has_now(node: Node, disks: list[str]) -> None:
    """The inventory's kernel name, made by a link that is moved as a boot moves names."""
    one, two = disks[:2]
    node.module("thin_pool", devices=[one])
    node.run(f"mkfs.ext4 -q -L precious {two}")
    assert node.module("thin_pool", devices=[two], wipe=True)["msg"] == (
        f"Device {two} does not belong to the volume group, whose disk {one} is not in devices, so kernel names may have changed; it is "
        "refused, even with wipe; name the pool's disks by their paths in /dev/disk/by-id, and a new disk too."
    )
    node.run(f"mkdir -p /dev/disk/by-id; ln -sfn {one} /dev/disk/by-id/wwn-test-1; ln -sfn {two} /dev/disk/by-id/wwn-test-2")
    try:
        node.run(f"ln -sfn {one} /dev/test-alias")
        [first, second] = node.modules("thin_pool", {"devices": ["/dev/test-alias"]}, {"devices": ["/dev/test-alias"]})
        assert first["steps"] == ["identify"]
        assert second["steps"] == []
        assert first["pool"]["stable_devices"] == ["/dev/disk/by-id/wwn-test-1"]
        node.run(f"ln -sfn {two} /dev/test-alias; vgchange -q -an kata; vgremove -q -q --force --force --yes kata; wipefs -q --all {one}")
        for state in ("present", "absent"):
            assert node.module("thin_pool", devices=["/dev/test-alias"], wipe=True, state=state)["msg"] == (
                "Device /dev/test-alias was /dev/disk/by-id/wwn-test-1 when it was given to the pool and is /dev/disk/by-id/wwn-test-2 "
                "now, and is "
                "refused, even with wipe; name the pool's disk by that path in devices, and a new disk by its own path in /dev/disk/by-id."
            )
        assert "precious" in node.run(f"blkid -p {two}")
    finally:
        node.run("rm -f /dev/disk/by-id/wwn-test-* /dev/test-alias")


def test_foreign_pool_is_handed_back(node: Node, disks: list[str]) -> None:
    node.run(f"vgcreate -q kata {disks[0]}; lvcreate -q --type thin-pool --chunksize 512k --size 1g --name pool kata")
    fields = "lvs --noheadings --options lv_size,lv_tags,lv_profile kata/pool"
    before = node.run(fields)
    size: dict[str, t.Any] = {"size": "1GiB"}
    assert node.module("thin_pool", **size)["changed"]
    assert node.run(fields) != before
    tried = node.module("thin_pool", check=True, state="absent", discard=True)
    assert tried["changed"]
    done = node.module("thin_pool", state="absent", discard=True)
    assert done["diff"] == tried["diff"]
    assert node.run(fields) == before
    assert node.run("ls /etc/lvm/profile/screwdriver-kata-*", check=False) == ""
    assert not node.module("thin_pool", state="absent", discard=True)["changed"]


def test_role(node: Node, disks: list[str]) -> None:
    one = disks[0]

    def role(entry: str, *options: str, **variables: t.Any) -> list[dict[str, t.Any]]:
        task = {
            "ansible.builtin.include_role": {"name": "screwdriver.kata.thin_pool", "tasks_from": entry},
            "vars": {"thin_pool_devices": [one], **variables},
        }
        return node.results(node.start([task], *options))

    def changes(results: list[dict[str, t.Any]]) -> list[str]:
        assert not results[-1]["failed"], results[-1]
        return [result["task"] for result in results if result.get("changed")]

    assert any("Create or change the pool" in name for name in changes(role("main", "--check")))
    assert node.run("vgs --noheadings") == ""
    changes(role("main"))
    assert changes(role("main")) == []
    start = "systemctl show containerd --property ExecStartPre"
    assert "lvchange --quiet --activate y kata/pool" in node.run(start)
    assert node.run("cat /etc/modules-load.d/screwdriver-kata-thin-pool.conf").endswith("\ndm_thin_pool")

    watch = "screwdriver-kata-watch-kata-pool"
    node.run(f"systemctl is-active {watch}.timer && systemctl is-enabled {watch}.timer && systemctl start {watch}.service")
    changes(role("main", thin_pool_watch_percent=0))
    node.run(f"systemctl start {watch}.service")
    assert "Thin pool kata/pool uses 0.0 % of its data" in node.run(f"journalctl --unit {watch}.service --priority warning --output cat")
    changes(role("main", thin_pool_watch=False))
    assert node.run(f"ls /etc/systemd/system/{watch}.* /usr/local/sbin/{watch}", check=False) == ""
    assert changes(role("main", thin_pool_watch=False)) == []
    changes(role("main"))

    # Snapshots and their database go together, when asked, and never under a running containerd.
    database = "/var/lib/containerd/io.containerd.snapshotter.v1.devmapper"
    node.run(f"mkdir -p {database}; touch {database}/metadata.db; dmsetup message kata-pool 0 'create_thin 1'; systemctl start containerd")
    assert role("reset")[-1]["msg"] == (
        "A reset of thin pool kata/pool loses all snapshots of containerd; set thin_pool_discard_snapshots to true if that is intended."
    )
    for entry in ("reset", "absent"):
        assert role(entry, thin_pool_discard_snapshots=True)[-1]["msg"] == (
            "The service containerd is active, and the snapshots of a running containerd are not deleted; stop it first."
        )
    assert "has thin devices (1) and is not removed" in role("absent")[-1]["msg"]
    node.run(f"ls {database}/metadata.db; systemctl stop containerd")
    changes(role("reset", thin_pool_discard_snapshots=True))
    assert node.run(f"ls -A {database}", check=False) == ""

    # The database of an earlier pool: as an instance's disk is after it was replaced.
    node.run(f"mkdir -p {database}; touch {database}/metadata.db {database}/kata-pool.db")
    assert changes(role("main")) == []
    node.module("thin_pool", state="absent")
    for options in (("--check",), ()):
        assert role("main", *options)[-1]["msg"] == (
            f"Thin pool kata/pool does not exist, but {database} has containerd's database of an earlier pool, and devmapper would not "
            "start with it; if its snapshots are lost, stop containerd and run the entry point reset of the role thin_pool with "
            "thin_pool_discard_snapshots=true."
        )
    changes(role("reset", thin_pool_discard_snapshots=True))
    assert node.run(f"ls -A {database}", check=False) == ""
    node.run(
        "dmsetup message kata-pool 0 'create_thin 1'; dmsetup message kata-pool 0 'delete 1'; systemctl start containerd; "
        "systemctl is-active containerd"
    )
    changes(role("absent"))
    assert changes(role("absent")) == []
    assert "lvchange" not in node.run(start)
    assert (
        node.run(f"ls -d /etc/systemd/system/{watch}.* /usr/local/sbin/{watch} /run/{watch} /var/lib/screwdriver.kata", check=False) == ""
    )
    assert node.run(f"wipefs --no-act {one}; vgs --noheadings") == ""
