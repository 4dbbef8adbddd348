"""Who asked and who answered: signatures around every message between coordinator and hospital.

TLS proves which certificate a connection was made with. That is not enough: a certificate that was stolen
before its hospital got a new one still opens a connection, and the relay that faces the network
holds it. So each message is signed with an identity key too, of sealed and unsealed studies alike, and what
counts is the key that ``members.json`` names now.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from fedlens.protocol.roster import COORDINATOR, Identity, Roster


def content_digest(content: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Ask:
    """What the coordinator signs of a message to one hospital.

    Attributes:
        errand: Names this message; never used twice.
        study: Digest of the study that it belongs to.
        hospital: For whom it is.
        request: Digest of the request.
        own: Digest of what goes to this hospital only.
    """

    errand: str
    study: str
    hospital: str
    request: str
    own: str

    def signed_by(self, identity: Identity) -> bytes:
        """The coordinator's signature, 64 bytes."""
        return identity.sign("ask", self._content())

    def check(self, roster: Roster, signature: bytes) -> None:
        """Refuse what the coordinator did not sign for this hospital.

        Raises:
            ProtocolError: It did not.
        """
        roster.verify(COORDINATOR, "ask", self._content(), signature)

    def _content(self) -> bytes:
        return json.dumps([self.errand, self.study, self.hospital, self.request, self.own]).encode()


def sign_answer(identity: Identity, errand: str, failed: bool, content: str) -> bytes:
    """The hospital's signature over the digest of its answer, or of the text that says why there is none."""
    return identity.sign("answer", _answer(identity.name, errand, failed, content))


def check_answer(
    roster: Roster, signature: bytes, hospital: str, errand: str, failed: bool, content: str
) -> None:
    """Refuse an answer that the hospital did not sign.

    Raises:
        ProtocolError: It did not.
    """
    roster.verify(hospital, "answer", _answer(hospital, errand, failed, content), signature)


def _answer(hospital: str, errand: str, failed: bool, content: str) -> bytes:
    return json.dumps([hospital, errand, failed, content]).encode()
