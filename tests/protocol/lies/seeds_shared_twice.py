"""A hospital is asked to share the same seeds with a second set of keys."""

REASON = "shared already"


def tell(federation):
    current = federation.begin()
    request = current.keys_request()
    for name, hospital in federation.hospitals.items():
        current.take_keys(name, hospital.keys(request))
    asked = current.shares_request()
    federation.hospitals["A"].shares(asked)
    return lambda: federation.hospitals["A"].shares(asked)
