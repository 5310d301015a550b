"""The base model of JSON responses, shared by the API and the command line, and the values of its examples."""

from typing import Any

from pydantic import BaseModel, ConfigDict

JOB_ID = "0f6f2f4e-7b0f-4f61-9a5e-2f6d2f3e1c11"
IMAGE_ID = "9a41d1de-52c3-4c53-8bb5-1f0a7f6f0f9e"
THUMBHASH = "FkoGHIgDd4mWd3hyl3ULsIQQGQ=="
CREATED, STARTED, COMPLETED = (f"2026-03-01T12:00:0{second}.000000+00:00" for second in range(3))


class AnswerModel(BaseModel):
    """The body of a response, or a part of one. Its serializer is built at its first use, since a start needs few."""

    model_config = ConfigDict(defer_build=True)


def example(**values: Any) -> ConfigDict:
    """The `model_config` with the example for the API document. A test validates it with the model."""
    return ConfigDict(defer_build=True, json_schema_extra={"examples": [values]})
