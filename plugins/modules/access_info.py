#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: access_info
short_description: Check which permissions the credentials have
version_added: 0.1.0
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
description:
  - Asks the API server for each permission whether the credentials have it, by a SelfSubjectAccessReview. Nothing is read or written
    otherwise.
  - Every authenticated user may ask, unless the cluster's C(system:basic-user) was changed.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.info_module
  - screwdriver.kata._attributes.actiongroup_k8s
options:
  permissions:
    description: The permissions to check.
    type: list
    elements: dict
    required: true
    suboptions:
      verbs:
        description: Verbs such as V(get), V(list) or V(watch).
        type: list
        elements: str
        required: true
      resource:
        description: The resource, in plural, such as V(pods).
        type: str
        required: true
      group:
        description: The API group. Empty for the core group.
        type: str
        default: ''
      namespace:
        description: The namespace. Empty for a resource of the cluster, or for all namespaces.
        type: str
        default: ''
      name:
        description: The one object that the permission is needed for. Empty for all.
        type: str
        default: ''
seealso:
  - module: screwdriver.kata.rollout
"""

EXAMPLES = r"""
- name: Check that builds can be watched
  screwdriver.kata.access_info:
    permissions:
      - resource: pods
        namespace: sd-builds
        verbs:
          - list
          - watch
  register: access

- name: Fail if not
  ansible.builtin.assert:
    that: access.denied | length == 0
    fail_msg: "{{ access.denied | join(', ') }}"
"""

RETURN = r"""
denied:
  description: The permissions that are missing, each as one phrase. Empty if none is.
  returned: success
  type: list
  elements: str
  sample:
    - watch pods in namespace sd-builds
"""

import typing as t

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import Cluster, create_module

REVIEW = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {}}
PERMISSION = {
    "verbs": {"type": "list", "elements": "str", "required": True},
    "resource": {"type": "str", "required": True},
    "group": {"type": "str", "default": ""},
    "namespace": {"type": "str", "default": ""},
    "name": {"type": "str", "default": ""},
}


def reviews_of(permission: dict[str, t.Any]) -> list[dict[str, str]]:
    """One attribute set of a review for each verb."""
    attributes = {key: permission[key] for key in ("resource", "group", "namespace", "name")}
    return [{**attributes, "verb": verb} for verb in permission["verbs"]]


def phrase_of(attributes: dict[str, str]) -> str:
    """Such as "patch deployments.apps buildcluster-queue-worker in namespace sd"."""
    resource = attributes["resource"] + (f".{attributes['group']}" if attributes["group"] else "")
    name = f" {attributes['name']}" if attributes["name"] else ""
    place = f" in namespace {attributes['namespace']}" if attributes["namespace"] else ""
    return f"{attributes['verb']} {resource}{name}{place}"


def denied(cluster: Cluster, permissions: list[dict[str, t.Any]]) -> list[str]:
    found = []
    for attributes in (review for permission in permissions for review in reviews_of(permission)):
        answer = cluster.create({**REVIEW, "spec": {"resourceAttributes": attributes}})
        if not answer["status"].get("allowed"):
            found.append(phrase_of(attributes))
    return found


def main() -> None:
    module = create_module({"permissions": {"type": "list", "elements": "dict", "required": True, "options": PERMISSION}})
    try:
        module.exit_json(changed=False, denied=denied(Cluster(module), module.params["permissions"]))
    except UserError as exc:
        module.fail_json(msg=str(exc))


if __name__ == "__main__":
    main()
