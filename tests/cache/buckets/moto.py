"""An S3-speaking server that checks signatures, with a bucket in it, until standard input ends.

Prints one line of JSON: its port, and the access key of a user that may do everything with the bucket.
"""

import json
import logging
import os
import sys

logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
    os.environ[name] = "setup"
os.environ["AWS_DEFAULT_REGION"] = "us-east-1"

import boto3
from moto import settings
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
port = server.get_host_and_port()[1]
endpoint = f"http://127.0.0.1:{port}"

iam = boto3.client("iam", endpoint_url=endpoint)
iam.create_user(UserName="edge")
allowed = [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]
policy = json.dumps({"Version": "2012-10-17", "Statement": allowed})
iam.put_user_policy(UserName="edge", PolicyName="all", PolicyDocument=policy)
key = iam.create_access_key(UserName="edge")["AccessKey"]

s3 = boto3.client("s3", endpoint_url=endpoint)
s3.create_bucket(Bucket="assets")
for name in ("plain.txt", "with space.txt", "a+b=c&d.txt", "@(x)!'*,;:$.txt", "\u20ac/\u00e4.txt", "100%.txt"):
    s3.put_object(Bucket="assets", Key=name, Body=f"the object {name}".encode(), CacheControl="max-age=60")
s3.put_object(Bucket="assets", Key="short.txt", Body=b"0123456789", CacheControl="max-age=0")

# From here on every request must be signed by somebody who may.
settings.INITIAL_NO_AUTH_ACTION_COUNT = 0
print(json.dumps({"port": port, "id": key["AccessKeyId"], "secret": key["SecretAccessKey"]}), flush=True)
sys.stdin.read()
server.stop()
