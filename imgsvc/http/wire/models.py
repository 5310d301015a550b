"""The base of what is answered as JSON."""

from pydantic import BaseModel, ConfigDict


class AnswerModel(BaseModel):
    """The body of an answer, or a part of one. Its serializer is made at its first use: a start needs few of them."""

    model_config = ConfigDict(defer_build=True)
