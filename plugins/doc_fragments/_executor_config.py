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
      - A YAML file that holds the worker's config, such as its C(local.yaml), on the host where the module runs.
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
      deployment:
        description:
          - The worker's Deployment, in the same namespace.
          - Its environment variables are read, since they beat the file.
        type: str
requirements:
  - mini-racer >= 0.12.4
  - ruamel.yaml >= 0.18.0
notes:
  - Environment variables that the Deployment takes whole from a ConfigMap or Secret (C(envFrom)) are not read.
"""
