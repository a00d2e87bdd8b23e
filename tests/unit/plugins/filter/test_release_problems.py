# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Why a role does not install its releases into a directory."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.screwdriver.kata.plugins.filter.release_problems import release_problems

HOST: dict[str, t.Any] = {"foreign_entries": [], "other_releases": ""}
PATH = "use an absolute path of letters, digits, '.', '_' and '-' outside of /opt/kata, for example /opt/kata-releases."


@pytest.mark.parametrize("path", ["", "/", "data", "~/data", "/data/", "/data/..", "/da ta", "/data;ls", "/opt/kata", "/opt/kata/releases"])
def test_paths_that_are_refused(path: str) -> None:
    assert release_problems(HOST, "kata", path, 60, "node1") == [f"kata_releases: '{path}' is not a valid directory of releases; {PATH}"]


@pytest.mark.parametrize("path", ["/opt/kata-releases", "/opt/kata2", "/srv/disk.1/kata_a"])
def test_paths_that_are_taken(path: str) -> None:
    assert release_problems(HOST, "kata", path, 1, "node1") == []


@pytest.mark.parametrize("timeout", [0, -5])
def test_timeouts_that_are_refused(timeout: int) -> None:
    sentence = f"crictl_download_timeout: {timeout} is not a number of seconds from 1 on; use for example 60."
    assert release_problems(HOST, "crictl", "/opt/crictl-releases", timeout, "node1") == [sentence]


def test_directories_of_others() -> None:
    host = {"foreign_entries": ["a", "b", "c"], "other_releases": "/opt/containerd-releases"}
    assert release_problems(host, "containerd", "/srv", 60, "node1") == [
        "containerd_releases: the releases on node1 are in /opt/containerd-releases, not in /srv; set it to that directory, or run the "
        "playbook remove with that directory first.",
        "containerd_releases: /srv on node1 contains a, b and c, which this role did not create; use a directory of its own, for example "
        "/srv/containerd.",
    ]
