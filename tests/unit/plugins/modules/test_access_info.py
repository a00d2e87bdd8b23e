"""What access_info asks and how it names what is missing."""

from __future__ import annotations

import typing as t

from ansible_collections.screwdriver.kata.plugins.modules import access_info


class Answers:
    """A stub of the API server's reviews: everything but watching is allowed."""

    def __init__(self) -> None:
        self.asked: list[dict[str, t.Any]] = []

    def create(self, body: dict[str, t.Any]) -> dict[str, t.Any]:
        attributes = body["spec"]["resourceAttributes"]
        self.asked.append(attributes)
        return {"status": {"allowed": attributes["verb"] != "watch"}}


def test_asks_for_each_verb_and_names_what_is_missing() -> None:
    answers = Answers()
    permissions = [
        {"verbs": ["list", "watch"], "resource": "pods", "group": "", "namespace": "sd-builds", "name": ""},
        {"verbs": ["patch"], "resource": "deployments", "group": "apps", "namespace": "sd", "name": "worker"},
    ]
    missing = access_info.denied(t.cast("t.Any", answers), permissions)
    assert missing == ["watch pods in namespace sd-builds"]
    assert [asked["verb"] for asked in answers.asked] == ["list", "watch", "patch"]


def test_a_phrase_names_group_and_object() -> None:
    attributes = {"verb": "patch", "resource": "deployments", "group": "apps", "namespace": "sd", "name": "worker"}
    assert access_info.phrase_of(attributes) == "patch deployments.apps worker in namespace sd"
    assert access_info.phrase_of({"verb": "list", "resource": "nodes", "group": "", "namespace": "", "name": ""}) == "list nodes"
