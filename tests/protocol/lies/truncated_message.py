"""The end of a request is missing."""

REASON = "was not signed by it"


def tell(federation):
    content = federation.begin().keys_request()[:-1]
    return lambda: federation.hospitals["A"].keys(content)
