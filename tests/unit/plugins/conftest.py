# Copyright: (c) The mlops.mlflow maintainers
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One MLflow server and one nginx before it, for all tests that ask for them."""

from ansible_collections.mlops.mlflow.tests.unit.plugins.mlflow_server import (
    hanging_port,
    mlflow_home,
    mlflow_server,
    nginx,
)

__all__ = ["hanging_port", "mlflow_home", "mlflow_server", "nginx"]
