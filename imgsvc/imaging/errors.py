"""Errors about a picture. Their messages are shown to clients."""


class ImageError(Exception):
    """A picture that can't be processed. `code` is stable; the message is one plain sentence for the client."""

    code = "image_unreadable"


class Unreadable(ImageError):
    """The file is damaged, truncated, or not of the type that its first bytes indicate."""


class Unforeseen(Unreadable):
    """A step raised an unexpected exception for this picture. It is logged with its cause: it may be a bug of ours."""

    def __init__(self) -> None:
        super().__init__("The image can't be processed: its data is damaged.")


class TooLarge(ImageError):
    """A limit is exceeded; the message names the limit and the measured value."""

    code = "image_too_large"


class Unsupported(ImageError):
    """A valid file of a kind that the decoders here do not read (12-bit JPEG, for instance)."""

    code = "image_unsupported"


class NotCheap(ImageError):
    """A preview would take several decodes: it is left to the render."""


class OutOfTime(ImageError):
    """The deadline of the job passed between two steps."""

    code = "timeout"


class OutOfMemory(ImageError):
    """The decoder or an encoder asked for more memory than this job may use."""

    code = "memory_limit"
