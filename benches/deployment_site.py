"""A site of bench_deployment.py: all loaded that a waiting site loads, and a handler that hands back what it gets."""

import signal
import sys
from pathlib import Path

import torch

import fedsci.site.service
import fedsci.training.learner
from fedsci.transport.flower_site import SiteConnection
from fedsci.transport.messages import Reply
from fedsci.transport.tls import SiteTls

name, tls, address, state = sys.argv[1:]
loaded = (fedsci.site.service, fedsci.training.learner, torch)
Path(state).mkdir(parents=True, exist_ok=True)
connection = SiteConnection(
    lambda request: Reply(fields={"site": name, "key": "00"}, vector=request.vector),
    address=address,
    tls=SiteTls.in_folder(Path(tls)),
    state=Path(state),
)
signal.signal(signal.SIGTERM, lambda *_: connection.stop())
connection.serve()
