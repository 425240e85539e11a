"""Signs what was seen on the wire with botocore, and says how it should have been sent.

Standard input: JSON lines with method, client (the target as the client sent it), target, host, date, sha256, token, id,
secret, region. Standard output: a line for each, the Authorization field and the target as botocore would send it.
"""

import json
import sys
from urllib.parse import quote, unquote_to_bytes

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials


def spelled(target):
    """As botocore encodes the key of an object and the parameters of a query."""
    path, mark, query = target.partition("?")
    pairs = []
    for pair in filter(None, query.split("&")):
        name, equals, value = (quote(unquote_to_bytes(part.replace("+", " ")), safe="-_.~") if part != "=" else part
                               for part in pair.partition("="))
        pairs.append(name + equals + value)
    return quote(unquote_to_bytes(path), safe="/-_.~") + mark + "&".join(pairs)


for line in sys.stdin:
    seen = json.loads(line)
    headers = {"host": seen["host"], "X-Amz-Date": seen["date"], "X-Amz-Content-SHA256": seen["sha256"]}
    if seen["token"]:
        headers["X-Amz-Security-Token"] = seen["token"]
    request = AWSRequest(method=seen["method"], url=f"http://{seen['host']}{seen['target']}", headers=headers)
    request.context["timestamp"] = seen["date"]
    auth = S3SigV4Auth(Credentials(seen["id"], seen["secret"]), "s3", seen["region"])
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    scope = auth.scope(request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    expected = f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders={names}, Signature={signature}"
    print(json.dumps({"authorization": expected, "target": spelled(seen["client"])}), flush=True)
