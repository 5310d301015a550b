"""What can be wrong with a picture, as the client will read it."""


class ImageError(Exception):
    """A picture that can't be processed. `code` is stable, the message is one plain sentence for the client."""

    code = "image_unreadable"


class Unreadable(ImageError):
    """The file is damaged, truncated, or not what its first bytes claim."""


class Unforeseen(Unreadable):
    """A step raised what nobody thought of, over this picture. Its cause goes into the log: it may be a bug of ours."""

    def __init__(self) -> None:
        super().__init__("The image can't be processed: its data is damaged.")


class TooLarge(ImageError):
    """A limit is exceeded; the message names the limit and the measured value."""

    code = "image_too_large"


class Unsupported(ImageError):
    """A valid file of a kind that the decoders here do not read (12-bit JPEG, for instance)."""

    code = "image_unsupported"


class OutOfTime(ImageError):
    """The deadline of the job passed between two steps."""

    code = "timeout"


class OutOfMemory(ImageError):
    """The decoder or an encoder asked for more memory than this job may use."""

    code = "memory_limit"
