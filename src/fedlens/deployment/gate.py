"""What is let into FLARE's cells: FedLens's own messages, and what a connection takes; nothing else.

FLARE's cells can do far more than a federation of FedLens needs: clients reach one another by way of the
server, and admin commands reach every site. None of it is used here, so all of it is turned away: the gate
is a filter in front, and sees a message before its content is read.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Any

from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey, MessagePropKey, MessageType, ReturnCode
from nvflare.fuel.f3.cellnet.fqcn import FQCN
from nvflare.fuel.f3.cellnet.utils import make_reply
from nvflare.fuel.f3.message import Message
from nvflare.fuel.f3.streaming.stream_const import STREAM_CHANNEL, STREAM_DATA_TOPIC, StreamHeaderKey
from nvflare.private.admin_defs import error_reply
from nvflare.private.defs import CellChannel, CellChannelTopic, CellMessageHeaderKeys, ClientType

from fedlens.deployment.headers import CHANNEL

_MOST_NOTED = 100

_log = logging.getLogger(__name__)


class Gate:
    """A watch over all that comes into a cell; put up once, it stays.

    Args:
        cell: FLARE's.
        channels: Channels on which requests are taken.
        lead: Channels on which only the lead's are taken.
        origin: The only cell that is listened to; None for all.
    """

    def __init__(
        self, cell: Any, channels: Collection[str], *, lead: Collection[str] = (), origin: str | None = None
    ) -> None:
        self._name = cell.get_fqcn()
        self._channels = frozenset(channels)
        self._lead = frozenset(lead)
        self._origin = origin
        self._noted: set[tuple[str, ...]] = set()
        cell.core_cell.add_incoming_filter(channel="*", topic="*", cb=self._drop)
        cell.core_cell.set_message_interceptor(self._refuse)

    def _drop(self, message: Message) -> Message | None:
        """Drop an answer that is not for this cell; any message returned here is a sign to do so."""
        is_request = message.get_header(MessageHeaderKey.MSG_TYPE) == MessageType.REQ
        return None if is_request or self._belongs(message) else self._turn_away(message)

    def _refuse(self, message: Message) -> Message | None:
        """What to answer to a request that is not taken; None to take it."""
        return None if self._belongs(message) and self._is_taken(message) else self._turn_away(message)

    def _belongs(self, message: Message) -> bool:
        """Whether it is for this cell and from one that is listened to."""
        if message.get_header(MessageHeaderKey.DESTINATION) != self._name:
            return False
        return self._origin is None or message.get_header(MessageHeaderKey.ORIGIN) == self._origin

    def _is_taken(self, message: Message) -> bool:
        channel = message.get_header(MessageHeaderKey.CHANNEL)
        topic = message.get_header(MessageHeaderKey.TOPIC)
        if channel == CellChannel.CELLNET:
            return bool(topic == CellChannelTopic.Bye)
        if channel == STREAM_CHANNEL:
            if topic != STREAM_DATA_TOPIC:
                return True
            channel = message.get_header(StreamHeaderKey.CHANNEL)
            if channel == CellChannel.RETURN_ONLY:
                # What this cell asked for; FLARE itself looks whether somebody waits for it.
                return True
        if channel in self._lead or message.get_header(CellMessageHeaderKeys.CLIENT_TYPE) == ClientType.ADMIN:
            # The name in the certificate: the lead's is an e-mail address, which no hospital's can be.
            return "@" in str(message.get_prop(MessagePropKey.COMMON_NAME))
        return channel in self._channels

    def _turn_away(self, message: Message) -> Message:
        keys = (MessageHeaderKey.ORIGIN, MessageHeaderKey.CHANNEL, MessageHeaderKey.TOPIC)
        origin, channel, topic = noted = tuple(str(message.get_header(key))[:80] for key in keys)
        # Once for each kind, so that nobody fills the disk with it.
        if noted not in self._noted and len(self._noted) < _MOST_NOTED:
            self._noted.add(noted)
            _log.warning("turned away: %r on channel %r from %r", topic, channel, origin)
        # In the form in which FLARE shows it to whoever gave the command, or sent the job.
        reply = make_reply(
            ReturnCode.OK if channel == CellChannel.CLIENT_MAIN else ReturnCode.UNAUTHENTICATED
        )
        reply.payload = error_reply(f"{self._name} takes no FLARE job or command, FedLens studies only")
        return reply


def guard_hospital(cell: Any) -> None:
    """A hospital's client listens to the coordinator only, and only to FedLens's messages."""
    Gate(cell, {CHANNEL}, origin=FQCN.ROOT_SERVER)


def guard_coordinator(cell: Any) -> None:
    """The coordinator's server hands nothing on. It takes registrations, signs of life, the lead's commands.

    FLARE would open a session of commands for a hospital too, and asks for no right at all in some of them.
    """
    Gate(cell, {CellChannel.SERVER_MAIN}, lead={CellChannel.HCI})
