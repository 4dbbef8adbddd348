"""Lies, one a file.

``tell`` makes everything ready for one and returns the act that the honest side must refuse. ``REASON`` is
what the refusal must say. ``ENDS_THE_SUM`` marks lies that come out only when the sum is opened.
"""
