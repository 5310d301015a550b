"""The S3 server of the tests does check what it is there to check."""

import sys

import httpx
import pytest
from botocore.exceptions import ClientError

from tests.support.s3 import S3Server


def test_it_keeps_and_checks(s3: S3Server) -> None:
    bucket, client, wrong = s3.bucket(), s3.client, s3.client_with("another secret")
    client.put_object(Bucket=bucket, Key="a/b", Body=b"kept", ServerSideEncryption="AES256")
    assert s3.keys(bucket) == ["a/b"]
    url = client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "a/b"})
    assert httpx.get(url).content == b"kept"
    assert httpx.get(url.replace("a/b", "a/c")).status_code == 403
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        wrong.get_object(Bucket=bucket, Key="a/b")
    with pytest.raises(ClientError, match="BadDigest"):
        client.put_object(Bucket=bucket, Key="a/b", Body=b"changed", ContentMD5="1B2M2Y8AsgTpgAmY7PhCfg==")
    wrong.close()
    assert "eventlet" not in sys.modules
