"""Certificates that live for half a minute, in running processes: renewed in time, and refused where they were not."""

import datetime
import json

import pytest
from cryptography import x509

from fedsci.secagg import open_roster
from fedsci.secagg.keys import check_signature
from fedsci.site.keystore import Keystore

pytestmark = pytest.mark.slow
DAYS = "0.0005"  # 43 s: renewed 14 s after they were made


def found(consortium):
    enrolment, fleet = consortium.ports
    place = ("--address", f"127.0.0.1:{enrolment}", "--fleet-port", str(fleet))
    consortium.good("coordinator", "init", *place, "--certificate-days", DAYS)
    consortium.start_coordinator()
    consortium.until(lambda: "started" in consortium.events("coordinator"))
    for lab in consortium.study.labs:
        consortium.good("site", "init", f"{lab}.yaml")
        consortium.join(lab)
        consortium.start_site(lab)


def certificate(consortium, path):
    return x509.load_pem_x509_certificates((consortium.folder / path).read_bytes())[0]


def outlived(certificate):
    return certificate.not_valid_after_utc < datetime.datetime.now(datetime.UTC)


def statement_of(consortium, lab):
    """What a site signs today."""
    key = Keystore(consortium.folder / "state" / lab).signing_key()
    return key.public, key.sign("statement", b"what was released")


def test_sites_and_coordinator_renew_in_a_study_and_who_did_not_joins_again(deploy):
    consortium = deploy(rounds=2000)  # is stopped when it has gone on for long enough
    for values in consortium.study.sites.values():
        values["datasets"]["tumours"]["privacy"]["epsilon"] = 8.0
    consortium.study.write()
    found(consortium)
    labs = consortium.study.labs
    connected = lambda: all(consortium.json("site", "status", f"{lab}.yaml")["connected"] for lab in labs)  # noqa: E731
    consortium.until(connected)
    statements = {lab: statement_of(consortium, lab) for lab in labs}

    assert consortium.submit().code == 0
    consortium.until(lambda: consortium.runs()[0]["state"] == "running")
    paths = ["consortium/server.crt", *(f"state/{lab}/tls/site.crt" for lab in labs)]
    at_first = {path: certificate(consortium, path) for path in paths}
    consortium.until(lambda: all(outlived(certificate) for certificate in at_first.values()))
    seen = consortium.runs()[0]["rounds"]
    consortium.until(lambda: consortium.runs()[0]["rounds"] > seen + 5)
    for path in paths:
        assert not outlived(certificate(consortium, path)), path
    consortium.good("coordinator", "stop", "tumours")
    consortium.until(lambda: consortium.runs()[0]["state"] == "aborted")
    (run,) = consortium.runs()
    assert "stopped by " in run["reason"], run
    summary = json.loads((consortium.folder / run["folder"] / "summary.json").read_text())
    assert summary["secure_aggregation"]["dropped"] == []
    for lab in labs:
        events = consortium.events(lab)
        since = events[events.index("connected") + 1 :]
        assert "renewed" in since
        assert not {"connected", "disconnected"} & set(since)
        verification_key, signature = statements[lab]
        pinned = (consortium.folder / "state" / lab / "consortium.pub").read_bytes()
        roster = open_roster((consortium.folder / "consortium" / "roster").read_bytes(), consortium_key=pinned)
        assert verification_key in {site.verification_key for site in roster.sites if site.name == lab}
        check_signature(verification_key, "statement", b"what was released", signature, rule="signature", who=lab)

    assert consortium.stop("lab-1") == [0]
    spent = consortium.json("site", "status", "lab-1.yaml")["datasets"]["tumours"]["spent"]
    assert spent > 0
    consortium.until(lambda: outlived(certificate(consortium, "state/lab-1/tls/site.crt")))
    consortium.start_site("lab-1")
    consortium.until(lambda: "disconnected" in consortium.events("lab-1")[-3:])
    status = consortium.json("site", "status", "lab-1.yaml")
    assert (status["running"], status["connected"], status["certificate_expired"]) == (True, False, True)
    assert status["last_error"].startswith("the certificate ran out on ")
    said = consortium.good("site", "status", "lab-1.yaml").out
    assert "RAN OUT" in said
    assert "fedsci site join lab-1.yaml TOKEN" in said
    assert "lab-1" in {site["site"] for site in consortium.json("coordinator", "sites") if site["state"] == "expired"}

    consortium.join("lab-1")  # while it runs
    consortium.until(connected)
    status = consortium.json("site", "status", "lab-1.yaml")
    assert (status["certificate_expired"], status["last_error"]) == (False, "")
    assert status["datasets"]["tumours"]["spent"] == spent
    again = consortium.submit("--wait", "--json", "--set", "training.rounds=2", "--set", "privacy.epsilon=1.0")
    assert again.code == 0, again.err + consortium.said()
    assert consortium.json("site", "status", "lab-1.yaml")["datasets"]["tumours"]["spent"] > spent + 0.1
