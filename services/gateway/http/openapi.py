"""The description of the routes that programs read, made from the models that requests are read
by.
"""

from functools import cache
from importlib.metadata import version
from typing import Any

from pydantic.json_schema import models_json_schema

from services.gateway.http.bodies import Body
from services.gateway.http.fields import ChatBody, TextBody
from services.gateway.http.token_bodies import DetokenizeBody, TokenizeBody

BODIES: dict[str, type[Body]] = {
    "/v1/chat/completions": ChatBody,
    "/v1/completions": TextBody,
    "/tokenize": TokenizeBody,
    "/detokenize": DetokenizeBody,
}
TOLD = {
    "/v1/models": "The models that are served.",
    "/v1/models/{model}": "One of them.",
    "/health": "200 where requests are served, 503 else.",
    "/ping": "The same.",
    "/version": "The version of the program.",
    "/load": "How many requests are under way.",
    "/metrics": "What is measured, for Prometheus.",
    "/openapi.json": "This.",
}
ERRORS = {
    "default": {
        "description": "A failure.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
}
ERROR: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


@cache
def openapi_document() -> dict[str, Any]:
    """Of OpenAPI 3.1."""
    template = "#/components/schemas/{model}"
    kinds, definitions = models_json_schema(
        [(kind, "validation") for kind in dict.fromkeys(BODIES.values())], ref_template=template
    )
    schemas = {kind: schema for (kind, _), schema in kinds.items()}
    paths: dict[str, Any] = {
        path: {"post": _asked(kind, schemas[kind])} for path, kind in BODIES.items()
    }
    paths |= {path: {"get": _told(path, text)} for path, text in TOLD.items()}
    return {
        "openapi": "3.1.0",
        "info": {"title": "moesaic", "version": version("moesaic")},
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}) | {"Error": ERROR},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"bearer": []}],
    }


def _asked(kind: type[Body], schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": (kind.__doc__ or "").strip(),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {"200": {"description": "The answer."}} | ERRORS,
    }


def _told(path: str, text: str) -> dict[str, Any]:
    parameters = [
        {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}
        for _ in range("{" in path)
    ]
    responses = {"200": {"description": text}} | ERRORS
    return {"summary": text, "parameters": parameters, "responses": responses}
