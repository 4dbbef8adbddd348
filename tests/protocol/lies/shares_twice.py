"""A hospital shares its seeds a second time."""

REASON = "came twice"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    for name, hospital in federation.hospitals.items():
        current.take_keys(name, hospital.keys(request))
    shares = federation.hospitals["A"].shares(current.shares_request())
    current.take_shares("A", shares)
    return lambda: current.take_shares("A", shares)
