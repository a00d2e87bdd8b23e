# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this doc fragment is **PRIVATE** to the collection. It can have breaking changes at any time.
# Do not use this from other collections or standalone plugins/modules!

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  path:
    description:
      - A YAML or JSON file that holds the worker's config, such as its C(local.yaml), on the host where the module runs. A manifest and a
        file of Helm values, which have the config below other keys, are refused.
      - Nothing is known of the variables of a worker that reads it.
      - Exactly one of O(path) and O(config_map) must be given.
    type: path
  config_map:
    description:
      - A ConfigMap that holds the worker's config.
      - Exactly one of O(path) and O(config_map) must be given.
    type: dict
    suboptions:
      namespace:
        description: The ConfigMap's namespace.
        type: str
        required: true
      name:
        description: The ConfigMap's name.
        type: str
        required: true
      key:
        description: The key in the ConfigMap's data.
        type: str
        default: local.yaml
      kind:
        description: V(Secret) if the config is kept in a Secret.
        type: str
        choices: [ConfigMap, Secret]
        default: ConfigMap
      deployment:
        description:
          - The worker's Deployment, or StatefulSet, in the same namespace.
          - Its environment variables are read, since they override the file, with the ConfigMaps that they are taken from. Of a Secret only
            the names of its keys count.
          - Its other config files are read, since they can override this one, from the objects that it mounts where it reads its config.
            Of a Secret counts only whether it has an executor section.
          - Other workers that read the same config, which have the image of this one or Screwdriver's, are judged with their own
            variables, and their pods are replaced as well. Left out, they are judged alone.
          - Its pods are replaced when the content changed, or where they started before its last change and mount it by C(subPath).
          - A ConfigMap that is immutable or has the hash of its content in its name is replaced by a new one that it is made to mount; the
            old one is kept.
        type: str
      workload_kind:
        description: What O(config_map.deployment) is.
        type: str
        choices: [Deployment, StatefulSet]
        default: Deployment
      container:
        description: The worker's container. Only needed where several could be it.
        type: str
      mount:
        description:
          - Create the ConfigMap where it does not exist, and mount it in O(config_map.deployment) where that does not mount it. For a
            worker that has variables alone.
        type: bool
        default: false
requirements:
  - PyYAML >= 6.0
  - regress >= 2026.9.1
"""
