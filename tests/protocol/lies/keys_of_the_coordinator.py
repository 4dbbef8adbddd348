"""The coordinator joins the hospitals with keys of its own, to be given shares of all seeds."""

import os

from fedlens.protocol.codec import sign
from fedlens.protocol.messages import SharesRequest
from fedlens.protocol.session import begin_session

REASON = "coordinator is no hospital of the roster"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    keys = {name: hospital.keys(request) for name, hospital in federation.hospitals.items()}
    own = begin_session(
        current.stamp, federation.coordinator, federation.roster, federation.threshold, os.urandom
    )
    asked = sign(SharesRequest(current.stamp, {**keys, "coordinator": own.own_keys}), federation.coordinator)
    return lambda: federation.hospitals["A"].shares(asked)
