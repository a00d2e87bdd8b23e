#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: executor_config_info
short_description: Reports how a Screwdriver build cluster worker routes builds, and what is wrong with its config
version_added: 0.1.0
description:
  - Reads a worker's config and reports what C(screwdriver-executor-router) makes of the C(executor) section that the worker acts on, which
    is its shipped values, under the file, under C(NODE_CONFIG), under its environment variables. Other config files that the worker mounts
    count as well.
  - A value that cannot be read, for example in a Secret, is reported as unknown, and never replaced by a default.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.info_module
  - screwdriver.kata._attributes.actiongroup_k8s
  - screwdriver.kata._executor_config
options:
  images:
    description: Images for each of which RV(shares) reports the executors that get its builds.
    type: list
    elements: str
    default: []
  kata_executor:
    description: Name of the executor entry that runs builds on Kata, for RV(pod_diff).
    type: str
    default: k8s-kata
  legacy_executor:
    description: Name of the current executor's entry, for RV(pod_diff). Left out, it is the one that C(plugin) names.
    type: str
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
requirements:
  - PyYAML >= 6.0
  - regress >= 2026.9.1
seealso:
  - module: screwdriver.kata.executor_config
"""

EXAMPLES = r"""
- name: Read the worker's routing
  screwdriver.kata.executor_config_info:
    config_map:
      namespace: sd
      name: buildcluster-queue-worker
      deployment: buildcluster-queue-worker
    images:
      - node:22
      - registry.example/rhel6-tools:1
  register: routing

- name: Fail if builds would be lost
  ansible.builtin.assert:
    that: routing.findings | selectattr('severity', 'eq', 'error') | length == 0
"""

RETURN = r"""
executor:
  description: The executor section of the file. Secrets are masked.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
effective:
  description: The executor section that the worker acts on. Secrets are masked; a value that cannot be read names where it comes from.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
weightages:
  description: Each executor's weightage as the worker acts on it.
  returned: success
  type: dict
  sample: {k8s-vm: 90, k8s-kata: 10}
shares:
  description: For each of O(images), each executor's probability, from 0 to 1. Empty for an image where it cannot be known.
  returned: success
  type: dict
  sample:
    node:22: {k8s-vm: 0.9, k8s-kata: 0.1}
    registry.example/rhel6-tools:1: {k8s-vm: 1.0, k8s-kata: 0.0}
workers:
  description:
    - The workloads that read the config and whose pods are replaced when it changes, each with C(kind) and C(name), that of
      O(config_map.deployment) first. Empty without it.
  returned: success
  type: list
  elements: dict
  sample:
    - kind: Deployment
      name: buildcluster-queue-worker
pod_diff:
  description: Each field in which the pods of O(legacy_executor) and O(kata_executor) for the same build differ.
  returned: success
  type: list
  elements: dict
  contains:
    path:
      description: The field of the pod.
      type: str
      returned: success
    legacy:
      description: Its value in the pod of the legacy executor.
      type: raw
      returned: success
    kata:
      description: Its value in the pod of the Kata executor.
      type: raw
      returned: success
  sample:
    - path: spec.runtimeClassName
      legacy: null
      kata: kata
findings:
  description: What is wrong with the place, the config and the worker's variables, in the order of the file.
  returned: success
  type: list
  elements: dict
  contains:
    code:
      description:
        - What it is. C(executor_missing), C(entry_not_a_map), C(plugin_missing), C(plugin_unknown), C(plugin_excluded), C(name_is_method),
          C(plugin_name_missing), C(plugin_name_unknown), C(exclusion_ignored), C(exclusions_not_a_list), C(exclusion_invalid),
          C(exclusion_matches_all), C(weightage_not_a_number), C(weightage_fraction), C(weightage_negative), C(weightage_all_zero),
          C(switch_is_a_string), C(automount_ignored), C(rootless_buildkit_on), C(base_image_missing), C(build_secret_file_ignored),
          C(custom_entry_incomplete), C(entries_apart), C(environment_wins), C(environment_unknown), C(environment_invalid),
          C(file_wins), C(file_unknown), C(node_config_malformed), C(runtime_class_on_both), C(legacy_runs_kata),
          C(kata_without_runtime_class), C(option_not_carried), C(disk_space_ignored), C(file_not_mounted), C(defaults_hidden),
          C(config_shared), C(workers_apart), C(pods_outdated), C(pods_unknown), C(managed_elsewhere), C(retry_queue_fails_slow_starts).
      type: str
      returned: success
    severity:
      description: V(error) where builds go astray or fail, V(warning) where they can.
      type: str
      returned: success
    path:
      description: Where it stands, as a path in the file or the name of an environment variable.
      type: str
      returned: success
    message:
      description: What it is and what to do.
      type: str
      returned: success
  sample:
    - code: exclusion_ignored
      severity: error
      path: executor.k8s.exclusion
      message: "The key exclusion of k8s is ignored by every version of the router, so ['rhel6'] excludes nothing: write exclusions."
"""

from ansible_collections.screwdriver.kata.plugins.module_utils import _secrets as secrets
from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import report
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.source import SOURCE_OPTIONS, source_of
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.worker import WorkerError, effective
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import create_module


def main() -> None:
    module = create_module(
        {
            **SOURCE_OPTIONS,
            "images": {"type": "list", "elements": "str", "default": []},
            "kata_executor": {"type": "str", "default": "k8s-kata"},
            "legacy_executor": {"type": "str"},
        }
    )
    report.check_requirements(module)
    try:
        source = source_of(module)
        document = Document(source.read(), source.where, source.is_json).plain()
        report.hide(module, [document, source.environment.values])
        try:
            acted_on = source.effective(document)
        except WorkerError:
            # A finding has the reason; the worker does not start, so its routing is unknown.
            acted_on = effective({}, source.environment, shipped=False)
    except UserError as exc:
        module.fail_json(msg=secrets.mask_text(str(exc)))
    kata = module.params["kata_executor"]
    legacy = module.params["legacy_executor"] or str(acted_on.get("plugin"))
    known = not source.environment.unread
    module.exit_json(
        changed=False,
        **report.sections(document, acted_on),
        weightages=report.weightages(document, acted_on),
        shares={
            image: {name: round(float(part), 6) for name, part in report.shares(document, acted_on, image).items()} if known else {}
            for image in module.params["images"]
        },
        workers=report.workers(source),
        pod_diff=report.pod_diff(acted_on, kata, legacy),
        findings=report.findings(source, document, {each: each.environment for each in (source, *source.peers)}, kata, legacy),
    )


if __name__ == "__main__":
    main()
