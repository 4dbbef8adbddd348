"""One hospital is asked to sign two lists of survivors for one sum."""

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SurvivorsRequest

REASON = "Another list of survivors"


def tell(federation):
    current = federation.keyed()
    federation.uploaded(current)
    receipts = current._receipts

    def asking(survivors, dropped):
        given = {name: receipts[name] for name in survivors}
        request = SurvivorsRequest(current.stamp, tuple(survivors), tuple(dropped), given)
        return sign(request, federation.coordinator)

    federation.hospitals["A"].co_sign(asking("ABC", "D"))
    return lambda: federation.hospitals["A"].co_sign(asking("ABD", "C"))
