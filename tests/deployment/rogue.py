"""An attacker with some certificate and FLARE's own library, as a process: it prints what it got, as JSON.

``python -m tests.deployment.rogue PORT CERTIFICATES NAME ACTION...``, where CERTIFICATES holds client.crt,
client.key and rootCA.pem, and NAME is what it calls itself on the connection. Actions, done one after the
other: ``register:AS``, ``pose:AS``, ``say:TARGET:CHANNEL:TOPIC`` and ``admin:TARGET:TOPIC:BODY``.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.signal import Signal
from nvflare.app_common.job_schedulers.job_scheduler import DefaultJobScheduler
from nvflare.fuel.f3.cellnet.cell import Cell
from nvflare.fuel.f3.cellnet.defs import MessageHeaderKey
from nvflare.fuel.f3.drivers.driver_params import DriverParams
from nvflare.fuel.f3.message import Message
from nvflare.fuel.sec.authn import set_add_auth_headers_filters
from nvflare.private import admin_defs
from nvflare.private.defs import ClientType
from nvflare.private.fed.authenticator import Authenticator
from nvflare.private.fed.utils.fed_utils import nvflare_fobs_initialize

PROJECT = "chest"
SERVER = "localhost"
_SECONDS = 3.0


class Rogue:
    """A cell that says whatever it likes.

    Args:
        port: The coordinator's.
        certificates: Folder with client.crt, client.key and rootCA.pem.
        name: What it calls itself on the connection.
    """

    def __init__(self, port: int, certificates: Path, name: str) -> None:
        nvflare_fobs_initialize()
        self._certificates = certificates
        self._cell = Cell(
            fqcn=name,
            root_url=f"grpc://localhost:{port}",
            secure=True,
            credentials={
                DriverParams.CA_CERT.value: str(certificates / "rootCA.pem"),
                DriverParams.CLIENT_CERT.value: str(certificates / "client.crt"),
                DriverParams.CLIENT_KEY.value: str(certificates / "client.key"),
            },
            auth_identity_map={"server": SERVER},
        )
        self._cell.start()

    def register(self, name: str) -> str:
        """Register as a hospital; returns FLARE's token."""
        authenticator = Authenticator(
            cell=self._cell,
            project_name=PROJECT,
            client_name=name,
            client_type=ClientType.REGULAR,
            expected_sp_identity=SERVER,
            secure_mode=True,
            root_cert_file=str(self._certificates / "rootCA.pem"),
            private_key_file=str(self._certificates / "client.key"),
            cert_file=str(self._certificates / "client.crt"),
            msg_timeout=_SECONDS,
            retry_interval=0.5,
            timeout=_SECONDS,
        )
        token, signature, session, _ = authenticator.authenticate(FLContext(), Signal())
        set_add_auth_headers_filters(self._cell, name, token, signature, session)
        return f"token {token}"

    def say(self, target: str, channel: str, topic: str, payload: Any = None) -> str:
        """Send one request by way of the coordinator; returns the answer's return code and content."""
        reply = self._cell.core_cell.send_request(
            channel=channel, topic=topic, target=target, request=Message({}, payload), timeout=_SECONDS
        )
        content = getattr(reply.payload, "body", reply.payload)
        told = {key: value for key, value in reply.headers.items() if key.startswith("fl_")}
        return f"{reply.get_header(MessageHeaderKey.RETURN_CODE)}: {content} {told}"

    def administer(self, target: str, topic: str, body: str) -> str:
        """Send a command of FLARE's administration, as its server would."""
        return self.say(target, "admin", topic, admin_defs.Message(topic=topic, body=body))

    def pose(self, name: str) -> str:
        """Write another origin on all that is sent from now on."""
        self._cell.core_cell.my_info.fqcn = name
        return ""


class EagerScheduler(DefaultJobScheduler):  # type: ignore[misc]
    """For a coordinator gone bad: it deploys a job without asking hospitals whether they have room."""

    def _check_client_resources(self, job: Any, resource_reqs: dict[str, Any], fl_ctx: FLContext) -> Any:
        return dict.fromkeys(resource_reqs, (True, ""))


def main(port: str, certificates: str, name: str, *actions: str) -> None:
    """Do one thing after the other."""
    logging.disable(logging.CRITICAL)
    told = []
    rogue = Rogue(int(port), Path(certificates), name)
    kinds = {"register": rogue.register, "say": rogue.say, "admin": rogue.administer, "pose": rogue.pose}
    for action in actions:
        kind, *rest = action.split(":")
        try:
            told.append(kinds[kind](*rest))
        except Exception as error:  # noqa: BLE001 (whatever stopped it is what is asked for)
            told.append(f"{type(error).__name__}: {error}")
    print(json.dumps(told), flush=True)
    # FLARE's threads would go on trying to connect.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
