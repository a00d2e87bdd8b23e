#!/usr/bin/python

# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: executor_config_info
short_description: Tells how a Screwdriver build cluster worker routes builds, and what is wrong with its config
version_added: 0.1.0
description:
  - Reads the C(executor) section of a worker's config and says what C(screwdriver-executor-router) makes of it.
  - Patterns are judged by V8, the JavaScript engine that the worker runs on.
extends_documentation_fragment:
  - kubernetes.core.k8s_auth_options
  - screwdriver.kata._attributes
  - screwdriver.kata._attributes.info_module
  - screwdriver.kata._attributes.actiongroup_k8s
  - screwdriver.kata._executor_config
options:
  images:
    description: Image names to say for each which executor gets its builds.
    type: list
    elements: str
    default: []
author:
  - screwdriver.kata maintainers (@screwdriver-cd)
seealso:
  - module: screwdriver.kata.executor_config
"""

EXAMPLES = r"""
- name: Look at the worker's routing
  screwdriver.kata.executor_config_info:
    config_map:
      namespace: sd
      name: buildcluster-queue-worker
      deployment: buildcluster-queue-worker
    images:
      - node:22
      - registry.example/rhel6-tools:1
  register: routing

- name: Stop where builds would go astray
  ansible.builtin.assert:
    that: routing.findings | selectattr('severity', 'eq', 'error') | length == 0
"""

RETURN = r"""
executor:
  description: The executor section.
  returned: success
  type: dict
  sample:
    plugin: k8s-vm
    k8s-vm: {weightage: 90}
    k8s-kata: {pluginName: k8s, weightage: 10, exclusions: [rhel6]}
weightages:
  description: Each executor's weightage as it is written.
  returned: success
  type: dict
  sample: {k8s-vm: 90, k8s-kata: 10}
shares:
  description: For each of O(images), each executor's probability, from 0 to 1.
  returned: success
  type: dict
  sample:
    node:22: {k8s-vm: 0.9, k8s-kata: 0.1}
    registry.example/rhel6-tools:1: {k8s-vm: 1.0, k8s-kata: 0.0}
findings:
  description: What is wrong with the config and with the Deployment's environment, in the order of the file.
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
          C(custom_entry_incomplete), C(entries_apart), C(environment_wins), C(runtime_class_on_both), C(retry_queue_fails_slow_starts).
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

from ansible_collections.screwdriver.kata.plugins.module_utils._errors import UserError
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import document as _executor_config
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import findings as _findings
from ansible_collections.screwdriver.kata.plugins.module_utils._executor import routing as _routing
from ansible_collections.screwdriver.kata.plugins.module_utils._executor.document import Document
from ansible_collections.screwdriver.kata.plugins.module_utils._k8s import create_module


def main() -> None:
    module = create_module({**_executor_config.SOURCE_OPTIONS, "images": {"type": "list", "elements": "str", "default": []}})
    _executor_config.check_requirements(module)
    try:
        source = _executor_config.source_of(module)
        document = Document(source.read(), source.where).plain()
    except UserError as exc:
        module.fail_json(msg=str(exc))
    section = document.get("executor")
    section = section if isinstance(section, dict) else {}
    _executor_config.hide_tokens(module, section)
    module.exit_json(
        changed=False,
        executor=section,
        weightages=_routing.weightages(section),
        shares={
            image: {name: round(float(part), 6) for name, part in _routing.shares(section, image).items()}
            for image in module.params["images"]
        },
        findings=_findings.find(document, source.environment),
    )


if __name__ == "__main__":
    main()
