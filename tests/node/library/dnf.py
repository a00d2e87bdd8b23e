# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stub for the module dnf on a machine that has no dnf: returns what it was asked for."""

from __future__ import annotations

from ansible.module_utils.basic import AnsibleModule


def main() -> None:
    module = AnsibleModule({"name": {"type": "list", "elements": "str"}, "state": {"type": "str"}}, supports_check_mode=True)
    module.exit_json(changed=True, asked=module.params["name"])


if __name__ == "__main__":
    main()
