"""The same, at a hospital that was started again in between and knows only its ledger."""

from fedlens.protocol.ledger import Ledger

REASON = "was opened over A, B, C, D"


def tell(federation):
    first = federation.keyed()
    federation.uploaded(first)
    federation.open(first)
    kept = Ledger.from_json(federation.hospitals["A"].ledger.to_json())
    federation.hospitals["A"] = federation.start("A", ledger=kept)
    again = federation.keyed(federation.stamp(1, segment=2), "ABC")
    federation.uploaded(again)
    again.close()
    asked = again.unmask_request()
    return lambda: federation.hospitals["A"].unmask(asked)
