"""A server of S3's protocol on this machine, of the package moto."""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.request
from collections.abc import Iterator

import pytest

ENVIRONMENT = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y", "AWS_DEFAULT_REGION": "us-east-1"}


@contextlib.contextmanager
def s3_bucket() -> Iterator[str]:
    """Run the server, and yield the URL of its one bucket, which is empty; skip where the packages are missing."""
    s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed (extra: cloud)")
    moto = pytest.importorskip("moto.server", reason="moto's server is not installed (moto[s3], flask, flask-cors)")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        # moto's buckets belong to the process, and an earlier server of it may have left some.
        urllib.request.urlopen(f"http://{host}:{port}/moto-api/reset", data=b"").close()
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        os.environ.clear()
        os.environ.update(before)
        server.stop()
