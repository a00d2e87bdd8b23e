"""What the roles keep in order on a node: the size of /dev/shm, what builds and sandboxes leave, and metrics of the thin pool."""

from __future__ import annotations

import typing as t

from .helpers import STUBS

if t.TYPE_CHECKING:
    from .conftest import Roles

# Directories of builds and sandboxes; tmp_2 is in use, and a volume is shared with a sandbox that is gone.
LEFT = """
mkdir -p /opt/screwdriver/tmp_1 /opt/screwdriver/tmp_2 /opt/screwdriver/tmp_3 /run/vc/sbs/gone \
/run/kata-containers/shared/sandboxes/gone/shared
touch -d '3 days ago' /opt/screwdriver/tmp_1 /opt/screwdriver/tmp_2 /run/vc/sbs/gone
mkdir -p /srv/used /srv/volume && echo kept >/srv/volume/file
mount --bind /opt/screwdriver/tmp_2 /srv/used
mount --bind /srv/volume /run/kata-containers/shared/sandboxes/gone/shared
"""
DIRECTORIES = "ls -d /opt/screwdriver/* /run/vc/sbs/* /run/kata-containers/shared/sandboxes/* 2>/dev/null"
SIZE = "findmnt --noheadings --bytes --output SIZE /dev/shm"
UNITS = "ls /etc/systemd/system/screwdriver-kata-* /usr/local/sbin/screwdriver-kata-* 2>/dev/null"


def test_upkeep(roles: Roles) -> None:
    node = roles.node
    before = node.run(SIZE)
    asked: dict[str, t.Any] = {"kata_handlers": STUBS[:1], "kata_shm_size": "64M", "kata_clean_up_hours": 24}
    assert roles.refusal("kata", **{**asked, "kata_shm_size": "much"}) == (
        "kata_shm_size: 'much' is not a valid size of a tmpfs; use for example 80% or 64G."
    )
    assert roles.changes("kata", **asked)
    assert roles.changes("kata", **asked) == []
    assert int(node.run(SIZE)) == 64 * 2**20 != int(before)
    assert node.run("systemctl is-enabled screwdriver-kata-shm.service screwdriver-kata-clean-up.timer").split() == ["enabled", "enabled"]
    assert node.run("systemctl is-active screwdriver-kata-clean-up.timer") == "active"

    node.run(LEFT)
    node.run("systemctl start screwdriver-kata-clean-up.service")
    assert node.run(DIRECTORIES, check=False).split() == [
        "/opt/screwdriver/tmp_2",
        "/opt/screwdriver/tmp_3",
        "/run/kata-containers/shared/sandboxes/gone",
    ]

    assert roles.changes("kata", **{**asked, "kata_shm_size": "5%"})
    assert roles.changes("kata", **asked)
    assert int(node.run(SIZE)) == 64 * 2**20

    # What is no longer asked for goes, and the rest stays.
    less = {**asked, "kata_clean_up_hours": 0}
    assert roles.changes("kata", **less)
    assert node.run(UNITS, check=False) == "/etc/systemd/system/screwdriver-kata-shm.service"
    assert roles.changes("kata", **less) == []

    # A removal leaves nothing of it, and nothing that builds left; a volume keeps its content.
    node.run("umount /srv/used")
    tried = roles.run("kata", entry="absent", options=("--check",), **less)
    assert any(result["task"].endswith("Remove what builds and sandboxes left behind") and result["changed"] for result in tried)
    assert node.run(DIRECTORIES, check=False)
    assert roles.changes("kata", entry="absent", **less)
    assert node.run(f"{UNITS}; {DIRECTORIES}; ls -d /opt/screwdriver /run/vc /run/kata-containers 2>/dev/null", check=False) == ""
    assert node.run("cat /srv/volume/file") == "kept"
    assert roles.changes("kata", entry="absent", **less) == []
    assert node.run(SIZE) == before


METRICS = "screwdriver_kata_thin_pool_kata_pool.prom"
# A check of the pool as the role leaves it, with metrics in two directories.
CHECK = f"""
mkdir -p /srv/old /srv/new && touch /srv/old/{METRICS} /srv/new/{METRICS}
printf '[Service]\\nExecStart=/bin/true \\\\\\n  --textfile-directory=/srv/old \\\\\\n  --kubeconfig=\\n' \
  >/etc/systemd/system/screwdriver-kata-watch-kata-pool.service
"""


def test_metrics_that_are_no_longer_written(roles: Roles) -> None:
    """A pool needs a real machine; these tasks of the role do not."""
    node = roles.node
    node.run(CHECK)

    def left(entry: str, *options: str, **variables: str) -> str:
        role = {"ansible.builtin.include_role": {"name": "screwdriver.kata.thin_pool", "tasks_from": entry}, "vars": variables}
        results = node.results(node.start([role], *options))
        assert not results[-1]["failed"], results[-1]
        return node.run(f"ls -d /srv/*/{METRICS}", check=False)

    both = f"/srv/new/{METRICS}\n/srv/old/{METRICS}"
    assert left("_stale_metrics", __thin_pool_metrics_kept="/srv/old") == both
    assert left("_stale_metrics", "--check", __thin_pool_metrics_kept="/srv/new") == both
    assert left("_stale_metrics", __thin_pool_metrics_kept="/srv/new") == f"/srv/new/{METRICS}"
    # Without the option, as in a run that removes the node.
    node.run(CHECK)
    assert left("_unwatch") == f"/srv/new/{METRICS}"
    assert node.run("ls /etc/systemd/system/screwdriver-kata-watch-*", check=False) == ""
