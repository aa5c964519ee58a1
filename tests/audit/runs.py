"""A run's log and its witnesses, small and complete, for the tests of both."""

from base64 import b64decode

from fedsci.audit.log import AuditLog
from fedsci.audit.statement import sign_statement
from fedsci.audit.witness import Witness
from fedsci.secagg.keys import SigningKey
from fedsci.secagg.seed import Seed

ORIGIN = "fedsci/5f0c0f6d1f6a4c0ab6a3b1a5c9f3c7d2"
COORDINATOR, STRANGER, *_KEYS = (SigningKey(Seed(bytes([n]) * 32)) for n in range(1, 6))
LABS = {f"lab-{number}": key for number, key in enumerate(_KEYS, start=1)}
SITES = {site: key.public for site, key in LABS.items()}
QUORUM = 2
TIME = 1_700_000_000
WHO = {"origin": ORIGIN, "coordinator": COORDINATOR.public}


def open_log(folder, **other):
    return AuditLog(folder, **{"origin": ORIGIN, "signer": COORDINATOR, "sites": SITES, "quorum": QUORUM, **other})


def round_of(number, key=COORDINATOR, **more):
    return sign_statement("round", {"round": number, **more}, [key])


def witness_of(folder, site):
    witness = Witness(folder / site / "witness", folder / site / "anchors")
    witness.begin(ORIGIN, coordinator=COORDINATOR.public)
    return witness


def cosign(witness, log, site="lab-1", **other):
    """Ask a witness for the newest checkpoint, as the coordinator does."""
    note = log.checkpoint()
    old = witness.seen(**WHO).size
    asked = {"site": site, "signer": LABS[site], "old_size": old, "proof": log.consistency_proof(old), "now_s": TIME}
    return witness.cosign(note, **WHO, **(asked | other))


def run(folder, rounds=3):
    """Leave the folder of a run whose every round all sites cosigned; return its log."""
    log, witnesses = open_log(folder / "audit"), {site: witness_of(folder, site) for site in LABS}
    log.append("plan", sign_statement("plan", {"plan": {}}, [COORDINATOR]))
    for site, key in LABS.items():
        log.append("permit", sign_statement("permit", {"site": site}, [key]), site=site)
    for number in range(1, rounds + 1):
        log.append("round", round_of(number), round=number)
        for site, witness in witnesses.items():
            log.add_cosignature(site, cosign(witness, log, site))
    return log


def raw(line):
    return b64decode(line.split(" ")[2])
