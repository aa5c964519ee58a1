"""A site in a process of its own, for tests that kill it: requests on stdin, replies on stdout, one JSON line each."""

import base64
import json
import sys
from pathlib import Path

import numpy as np

from fedsci.config.site import load_site
from fedsci.site.service import SiteService
from fedsci.transport.messages import Request

service = SiteService(load_site(Path(sys.argv[1])), Path(sys.argv[2]))
service.keystore.pin_consortium(bytes.fromhex(sys.argv[3]))
for line in sys.stdin:
    asked = json.loads(line)
    vector = None if asked["vector"] is None else np.frombuffer(base64.b64decode(asked["vector"]), np.float32)
    reply = service.handle(Request(action=asked["action"], fields=asked["fields"], vector=vector))
    sent = None if reply.vector is None else base64.b64encode(reply.vector.tobytes()).decode()
    kind = None if reply.vector is None else reply.vector.dtype.name
    print(json.dumps({"fields": reply.fields, "error": reply.error, "vector": sent, "dtype": kind}), flush=True)
