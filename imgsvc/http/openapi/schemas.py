"""JSON schemas of the request and response models, in the form that an API document needs."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, models_json_schema

from ..wire.problems import ProblemBody
from ..wire.validation import Headers, Query
from .operations import Body, Content, Operation

Json = dict[str, Any]
TEMPLATE = "#/components/schemas/{model}"
Used = tuple[type[BaseModel], JsonSchemaMode]


class _Untitled(GenerateJsonSchema):
    """Omits titles of fields: they would only repeat the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002
        return False


class Schemas:
    """The models of some operations, each under a unique name."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        used: dict[Used, None] = {(ProblemBody, "serialization"): None}
        for one in operations:
            used |= {(body.model, "validation"): None for body in one.bodies if not isinstance(body.model, Content)}
            models = (answer.body for answer in one.answers.values())
            used |= {(model, "serialization"): None for model in models if isinstance(model, type)}
        self._references, definitions = models_json_schema(
            list(used), ref_template=TEMPLATE, schema_generator=_Untitled
        )
        self.components: Mapping[str, Json] = definitions["$defs"]

    def of_answer(self, body: type[BaseModel] | Content) -> Json:
        return dict(body.schema) if isinstance(body, Content) else self._references[body, "serialization"]

    def of_body(self, body: Body) -> Json:
        return (
            dict(body.model.schema) if isinstance(body.model, Content) else self._references[body.model, "validation"]
        )

    @property
    def problem(self) -> Json:
        return self._references[ProblemBody, "serialization"]


def parameters(place: str, model: type[Query] | type[Headers] | None) -> list[Json]:
    """The parameters of a query or header model."""
    if model is None:
        return []
    schema = model.model_json_schema(schema_generator=_Untitled)
    required = schema.get("required", [])
    return [_parameter(place, name, dict(field), name in required) for name, field in schema["properties"].items()]


def _parameter(place: str, name: str, schema: Json, required: bool) -> Json:
    """Split pydantic's schema of a field into the parameter's properties and those of its value."""
    for choice in schema.pop("anyOf", []):
        schema = schema if choice == {"type": "null"} else {**choice, **schema}  # absent or present, but never null
    if schema.get("default", ...) is None:
        del schema["default"]
    about: Json = {key: schema.pop(key) for key in ("description", "style", "explode", "examples") if key in schema}
    if "examples" in about:
        about["example"] = about.pop("examples")[0]
    value: Json = {"schema": schema}
    if schema.get("type") == "object":  # such a parameter is JSON text
        value = {"content": {"application/json": value}}
    return {"name": name, "in": place, "required": required, **about, **value}
