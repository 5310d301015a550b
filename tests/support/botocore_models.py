"""botocore reads a megabyte of JSON for each session: 70 ms of processor time, which a service takes once."""

from functools import cache


@cache
def share_models() -> None:
    """Let all sessions of this process, and of those that are forked from it, use what was read for one."""
    import botocore.session  # here, since most tests have nothing to do with S3
    from botocore.loaders import Loader

    loader = Loader()
    setattr(botocore.session, "create_loader", lambda *_: loader)  # noqa: B010
    session = botocore.session.get_session()
    session.create_client("s3", "us-east-1", aws_access_key_id="-", aws_secret_access_key="-").close()
