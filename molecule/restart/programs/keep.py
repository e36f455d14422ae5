# SPDX-License-Identifier: GPL-3.0-or-later
"""Have MLflow keep a key of its gateway and a secret of a webhook, and print the webhook's id.

keep.py URL SECRET
"""

import sys

from mlflow import MlflowClient
from mlflow.entities import GatewayEndpointModelConfig, GatewayModelLinkageType
from mlflow.tracking._tracking_service.utils import _get_store

url, secret = sys.argv[1:]
store = _get_store()
key = store.create_gateway_secret("key", {"api_key": secret}, "openai", {"api_base": url})
model = store.create_gateway_model_definition("model", key.secret_id, "openai", "m")
store.create_gateway_endpoint("listener", [GatewayEndpointModelConfig(model.model_definition_id, GatewayModelLinkageType.PRIMARY)])
print(MlflowClient().create_webhook("told", url, ["registered_model.created"], secret=secret).webhook_id)
