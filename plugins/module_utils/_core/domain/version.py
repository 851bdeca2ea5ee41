# Copyright: pgkeep contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is **PRIVATE** to the collection.
"""The version of the collection, for the command on a host, where galaxy.yml is not."""

from __future__ import annotations

VERSION = "0.1.0"
