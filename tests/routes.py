# SPDX-License-Identifier: GPL-3.0-or-later
"""Print the routes of the MLflow that this Python has: those of its Flask application, and those of FastAPI itself."""

import json
import os

os.environ["_MLFLOW_SERVER_SERVE_ARTIFACTS"] = "true"
from mlflow.server import app as flask
from mlflow.server.fastapi_app import app


def native(routes):
    for route in routes:
        for context in route.effective_route_contexts() if hasattr(route, "effective_route_contexts") else [route]:
            if getattr(context, "path", None) and getattr(context, "methods", None):
                yield from ((method, context.path) for method in context.methods)


routes = {
    "flask": sorted({(method, rule.rule) for rule in flask.url_map.iter_rules() for method in rule.methods}),
    "native": sorted(native(app.routes)),
}
print("ROUTES", json.dumps(routes))
