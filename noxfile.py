# Copyright (c) screwdriver.kata maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The checks that Ansible collections share, as antsibull-nox.toml configures them: ``make lint``."""

import antsibull_nox

antsibull_nox.load_antsibull_nox_toml()
