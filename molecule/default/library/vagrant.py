# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that molecule-plugins brings for its vagrant driver, where Ansible finds it."""

from __future__ import annotations

# Ansible recognizes a module by this import.
from ansible.module_utils.basic import AnsibleModule  # noqa: F401  # pylint: disable=unused-import
from molecule_plugins.vagrant.modules.vagrant import main

if __name__ == "__main__":
    main()
