"""The page of endpoints, made from the OpenAPI document."""

import json
from collections.abc import Iterator

from docs.markdown import GENERATED, code, link_to_error, table
from docs.sources import EVERYWHERE, TAGS, Json, document

EXAMPLE_LINES = 40
# Values in the examples; IDs are shell variables, which the reader has from a receipt.
MERGE_PATCH = "application/merge-patch+json"
BODIES = (("multipart/form-data", "form"), ("application/json", "JSON body"), (MERGE_PATCH, "JSON body"))
IN_PATHS = {
    "ticket": "$TICKET",
    "key_id": "$KEY_ID",
    "erasure_id": "$ERASURE_ID",
    "job_id": "$JOB_ID",
    "image_id": "$IMAGE_ID",
    "code": "rate_limited",
    "path": "BUCKET/KEY",
    "asset": "docs.css",
    "name": "base.css",
    "org": "default-org",
    "user": "alice",
    "webhook": "app",
}
IN_BODIES = {"to": "s3", "destination": "/backup/imgsvc", "token": "OPERATOR_TOKEN"}
HEAD = """\
The running service documents itself: `/docs` is a page that tries every call from a browser, and `/openapi.json` is an
OpenAPI 3.1 document that client generators read. This page is made from the same document.

In the examples below:

```sh
HOST=http://127.0.0.1:8000
TOKEN=$(./run token --sub me)                # a user token
OPERATOR=$(cat data/operator_token)          # the operator token
```

- `HEAD` works wherever `GET` does. A method that an address does not support is answered with 405 and `Allow`.
- Every response carries `X-Trace-ID`; send that header to choose the ID yourself.
- Every endpoint can also answer 400 [`host_not_allowed`](errors.md#host_not_allowed) and 500
  [`internal_error`](errors.md#internal_error); they are left out below.
- `size` is the name of a variant: `thumbnail`, `medium` (the default), `large`, `original`, or another one that
  `[images] sizes` names."""


def page() -> str:
    public, private = document(), document(private=True)
    parts = ["# Endpoints", GENERATED, HEAD]
    for tag, words in TAGS.items():
        listed = [(path, method, one) for path, method, one in _operations(public) if tag in one["tags"]]
        parts += [f"## {tag.capitalize()}", words, table(("call", "what it does", "access"), map(_row, listed))]
        for path, method, one in listed:
            if method != "HEAD":
                parts += _details(public, path, method, one, private["paths"][path][method.lower()])
    return "\n\n".join(parts) + "\n"


def _operations(doc: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in doc["paths"].items():
        for method, one in methods.items():
            yield path, method.upper(), one


def _row(listed: tuple[str, str, Json]) -> tuple[str, ...]:
    path, method, one = listed
    return code(f"{method} {path}"), one["summary"], _access(one)


def _access(one: Json) -> str:
    schemes = [name for way in one["security"] for name in way]
    if any(parameter["name"] == "ticket" for parameter in one["parameters"]):
        return "the ticket in the address"
    if not schemes:
        return "public"
    if "signature" in schemes:
        return "signed URL"
    if "bearer" in schemes:
        return "public; a user token shows more" if {} in one["security"] else "user token"
    return "operator"


def _details(doc: Json, path: str, method: str, one: Json, where_private: Json) -> list[str]:
    parts = [f"### {method} {path}", f"{one['summary']}."]
    if one.get("description"):
        parts.append(one["description"])
    access = f"Access: {_access(one)}."
    if _access(where_private) != _access(one):
        access += f" Where [reading is private](../guides/private-images.md): {_access(where_private)}."
    parts += [access, f"```sh\n{_curl(doc, path, method, one)}\n```"]
    rows = [*_parameters(one), *_body_fields(doc, one)]
    if rows:
        parts.append(table(("parameter", "in", "meaning"), rows))
    parts.append("\n".join(_answers(one)))
    example = _example(one)
    return [*parts, f"```json\n{example}\n```"] if example else parts


def _curl(doc: Json, path: str, method: str, one: Json) -> str:
    words = ["curl"]
    kind = _access(one)
    if kind == "user token":
        words.append('-H "Authorization: Bearer $TOKEN"')
    elif kind == "operator":
        words.append('-H "Authorization: Bearer $OPERATOR"')
    content = one.get("requestBody", {}).get("content", {})
    if "multipart/form-data" in content:
        words.append("-F bucket=holiday -F file=@photo.jpg")
    elif "application/json" in content:
        words.append(
            f"--json '{json.dumps(_body_example(doc, content['application/json']['schema']), ensure_ascii=False)}'"
        )
    elif MERGE_PATCH in content:
        body = json.dumps(_body_example(doc, content[MERGE_PATCH]["schema"]), ensure_ascii=False)
        words.append(f"-X {method} -H 'Content-Type: {MERGE_PATCH}' -d '{body}'")
    elif method != "GET":
        words.append(f"-X {method}")
    if "image/webp" in one["responses"].get("200", {}).get("content", {}):
        words.append("-Lo variant.webp")
    query = [f"{p['name']}=ID1,ID2" for p in one["parameters"] if p["in"] == "query" and p["required"]]
    for name in (p["name"] for p in one["parameters"] if p["in"] == "path"):
        path = path.replace(f"{{{name}}}", IN_PATHS[name])
    return " ".join([*words, f'"$HOST{path}{"?" + "&".join(query) if query else ""}"'])


def _resolved(doc: Json, schema: Json) -> Json:
    while True:
        if "$ref" in schema:
            schema = doc["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
        elif "anyOf" in schema and "properties" not in schema:
            schema = schema["anyOf"][0]
        else:
            return schema


def _body_example(doc: Json, schema: Json) -> object:
    """The schema's own example, or an object of the required members."""
    schema = _resolved(doc, schema)
    if schema.get("examples"):
        return schema["examples"][0]
    if "example" in schema:
        return schema["example"]
    members = schema.get("properties", {})
    return {name: IN_BODIES.get(name) or _value_example(members[name]) for name in schema.get("required", [])}


def _value_example(schema: Json) -> object:
    if schema.get("examples"):
        return schema["examples"][0]
    return schema["enum"][0] if "enum" in schema else schema.get("default", "…")


def _parameters(one: Json) -> Iterator[tuple[str, ...]]:
    for parameter in one["parameters"]:
        required = " (required)" if parameter["required"] and parameter["in"] != "path" else ""
        yield code(parameter["name"]), parameter["in"], _meaning(parameter, parameter.get("schema", {})) + required


def _body_fields(doc: Json, one: Json) -> Iterator[tuple[str, ...]]:
    content = one.get("requestBody", {}).get("content", {})
    for media_type, place in BODIES:
        if media_type not in content:
            continue
        schema = _resolved(doc, content[media_type]["schema"])
        for name, member in schema.get("properties", {}).items():
            required = " (required)" if name in schema.get("required", ()) else ""
            yield code(name), place, _meaning(member, member) + required


def _meaning(described: Json, schema: Json) -> str:
    words = [described.get("description", "")]
    if "enum" in schema:
        words.append(f"One of {', '.join(code(str(value)) for value in schema['enum'])}.")
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and most is not None:
        words.append(f"{least} to {most}.")
    if schema.get("default") not in (None, "", {}, []):
        words.append(f"Default `{json.dumps(schema['default'])}`.")
    return " ".join(word for word in words if word)


def _answers(one: Json) -> Iterator[str]:
    for status, answer in one["responses"].items():
        codes = answer.get("content", {}).get("application/problem+json", {}).get("examples", {})
        listed = [link_to_error(name) for name in codes if name not in EVERYWHERE]
        if listed:
            yield f"- **{status}** {', '.join(listed)}"
        elif not codes:
            yield f"- **{status}** {answer['description']}"


def _example(one: Json) -> str:
    """The JSON that a success answers with; empty where there is none, or where it is longer than a screen."""
    for status in ("200", "202"):
        found = one["responses"].get(status, {}).get("content", {}).get("application/json", {}).get("example")
        if found:
            text = json.dumps(found, indent=2, ensure_ascii=False)
            return text if text.count("\n") < EXAMPLE_LINES else ""
    return ""
