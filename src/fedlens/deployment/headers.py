"""Header fields between coordinator, relay and service: names only, so that all can import them."""

from __future__ import annotations

CHANNEL = "fedlens"
"""FLARE's channel for all of it."""

ERRAND = "fl_errand"
STUDY = "fl_study"
SIGNATURE = "fl_signature"
OWN = "fl_own"
"""How many of the last bytes are for this hospital only."""
WAIT = "fl_wait"
"""Seconds that the relay may wait for the answer before it says ``working``."""

STATE = "fl_state"
WORKING, DONE, FAILED, UNKNOWN, HERE = "working", "done", "failed", "unknown", "here"
PERCENT = "fl_percent"
STEP = "fl_step"
ERROR = "fl_error"
