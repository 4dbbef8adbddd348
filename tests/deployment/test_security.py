"""Attackers at a live coordinator and hospital: on the port, with some certificate, or on the machine."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import psutil
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.deployment.forgery import (
    HYBRID,
    TLS_1_3,
    X25519,
    agreed,
    another_authority,
    by_our_authority,
    client_hello,
    expired,
    hybrid_key,
    of_tomorrow,
    server_hello,
    unprovisioned,
)
from tests.deployment.running import (
    RunningFederation,
    free_port,
    move_to_port,
    run_fedlens,
    tiny_study,
    wait_until,
)

from fedlens.deployment.envelope import Ask, content_digest
from fedlens.deployment.flare_config import write_coordinator_config
from fedlens.deployment.headers import DONE, ERRAND, ERROR, FAILED, SIGNATURE, STATE, STUDY
from fedlens.deployment.kit import open_kit, read_kit
from fedlens.deployment.pipe import connect, receive_frame, send_frame
from fedlens.deployment.supervisor import coordinator_command
from fedlens.protocol.roster import COORDINATOR, Identity
from fedlens.study import Study

NOBODY = 65534
POLICY = 'sealing = "{sealing}"\nminimum_hospitals = 1\n'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""How an HTTP/2 client begins, gRPC's included: the preface, and an empty frame of settings."""


@pytest.fixture(scope="module")
def live(
    federation_folder: Path, dealt: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningFederation]:
    """The coordinator and hospital north, running; south's kit is there for attackers."""
    folder = Path(shutil.copytree(federation_folder, tmp_path_factory.mktemp("live") / "chest"))
    port = free_port()
    for kit in (folder / "coordinator", folder / "lead", *(folder / "hospitals").iterdir()):
        move_to_port(kit, port)
    federation = RunningFederation(folder, dealt)
    try:
        federation.start(["north"])
        yield federation
    finally:
        federation.close()


@pytest.fixture(autouse=True)
def _the_coordinator_outlives_every_attack(live: RunningFederation) -> Iterator[None]:
    """Nothing died, nothing was started again, and nobody but members was registered."""
    yield
    if "coordinator" not in live.processes:
        return
    assert live.child("coordinator", "nvflare").is_running()
    assert live.child("north", "nvflare").is_running()
    for kit in (live.coordinator, live.hospital("north")):
        assert "starting it again" not in live.notices(kit)
    joined = re.findall(r"New (\w+) (\S+)@\S* joined", _log(live.coordinator))
    assert set(joined) <= {("client", "north"), ("client", "south"), ("admin", "lead@example.org")}


def _port(live: RunningFederation) -> int:
    return read_kit(live.coordinator).port


def _certificates(live: RunningFederation, hospital: str) -> Path:
    return live.hospital(hospital) / "flare" / "startup"


def _log(kit: Path) -> str:
    return (kit / "logs" / "flare.log").read_text()


def test_an_eavesdropper_finds_tls_1_3_and_the_post_quantum_group_on_the_port(
    live: RunningFederation,
) -> None:
    extensions = server_hello(_port(live), client_hello({HYBRID: hybrid_key()}, (TLS_1_3,)))

    # An ML-KEM-768 ciphertext and an X25519 key.
    assert agreed(extensions) == (TLS_1_3, HYBRID, 1088 + 32)


def test_what_a_hospitals_own_client_offers_ends_in_the_post_quantum_group(live: RunningFederation) -> None:
    certificates = _certificates(live, "south")
    root, key, chain = (
        (certificates / name).read_bytes() for name in ("rootCA.pem", "client.key", "client.crt")
    )
    with socket.create_server(("localhost", 0)) as listener:
        listener.settimeout(10)
        channel = grpc.secure_channel(
            f"localhost:{listener.getsockname()[1]}", grpc.ssl_channel_credentials(root, key, chain)
        )
        channel.subscribe(lambda _: None, try_to_connect=True)
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as stream:
            head = stream.read(5)
            hello = head + stream.read(int.from_bytes(head[3:], "big"))
        channel.close()

    # It offers X25519 alone too; the coordinator takes the other.
    assert HYBRID.to_bytes(2, "big") in hello and X25519.to_bytes(2, "big") in hello
    assert agreed(server_hello(_port(live), hello))[:2] == (TLS_1_3, HYBRID)


def _knock(port: int, root: Path, *, latest: ssl.TLSVersion, chain: tuple[Path, Path] | None) -> bytes:
    """Connect as gRPC does; the first bytes of HTTP/2 that come back, none where the door was shut."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(root)
    context.maximum_version = latest
    context.set_alpn_protocols(["h2"])
    if chain is not None:
        context.load_cert_chain(*chain)
    try:
        with (
            socket.create_connection(("localhost", port), 5) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(PREFACE)
            return connection.recv(9)
    except (ssl.SSLError, ConnectionError):
        return b""


def _let_in(
    live: RunningFederation,
    chain: tuple[Path, Path] | None,
    latest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
) -> bool:
    root = _certificates(live, "south") / "rootCA.pem"
    answer = _knock(_port(live), root, latest=latest, chain=chain)
    # A frame of settings is how a server of HTTP/2 begins.
    assert answer == b"" or answer[3] == 4, answer
    return answer != b""


def _own_chain(live: RunningFederation) -> tuple[Path, Path]:
    certificates = _certificates(live, "south")
    return certificates / "client.crt", certificates / "client.key"


def test_a_member_with_its_certificate_is_let_in(live: RunningFederation) -> None:
    # So that being turned away means something in the tests that follow.
    assert _let_in(live, _own_chain(live))


def test_even_a_member_is_turned_away_with_tls_1_2(live: RunningFederation) -> None:
    assert not _let_in(live, _own_chain(live), ssl.TLSVersion.TLSv1_2)


Forge = Callable[[Path, Path], tuple[Path, Path]]
"""Makes a certificate and its key in a folder, given the federation's folder."""


def test_a_forged_certificate_of_the_federations_own_authority_would_work(
    live: RunningFederation, tmp_path: Path
) -> None:
    assert _let_in(live, by_our_authority(live.folder, tmp_path, (-1, 30)))


@pytest.mark.parametrize("forge", [unprovisioned, another_authority, expired, of_tomorrow])
def test_a_stranger_with_a_forged_certificate_is_turned_away(
    live: RunningFederation, tmp_path: Path, forge: Forge
) -> None:
    assert not _let_in(live, forge(live.folder, tmp_path))


def test_a_stranger_without_a_certificate_is_turned_away(live: RunningFederation) -> None:
    assert not _let_in(live, None)


def _ports(live: RunningFederation) -> set[int]:
    """Every port that the federation's processes listen on."""
    listening = set()
    for process in (process for name in live.processes for process in live.members(name)):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                listening.add(connection.laddr.port)
    return listening


@pytest.mark.parametrize("first", [PREFACE, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes(64)])
def test_plain_text_is_turned_away_at_every_port_of_every_process(
    live: RunningFederation, first: bytes
) -> None:
    ports = _ports(live)
    # FLARE's own port of this machine, of coordinator and hospital each, is there beside the coordinator's.
    assert _port(live) in ports and len(ports) == 3

    for port in ports:
        with socket.create_connection(("localhost", port), 5) as connection:
            connection.settimeout(10)
            answer = b""
            with contextlib.suppress(ConnectionError):
                connection.sendall(first)
                answer = connection.recv(4096)
        # Nothing, or an alert of TLS.
        assert answer == b"" or answer[0] == 21, (port, answer)


def test_another_user_of_the_machine_cannot_use_flares_local_ports(live: RunningFederation) -> None:
    root = _certificates(live, "south") / "rootCA.pem"
    for port in _ports(live) - {_port(live)}:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(root)
        with (
            socket.create_connection(("localhost", port), 5) as plain,
            pytest.raises((ssl.SSLError, ConnectionError)),
            context.wrap_socket(plain) as connection,
        ):
            connection.sendall(bytes(64))
            assert connection.recv(1) != b"", "closed"
            raise AssertionError("a client without a certificate was answered")


def _rogue(live: RunningFederation, hospital: str, name: str, *actions: str) -> list[str]:
    """What an attacker with a hospital's certificate gets for its actions; see ``rogue.py``."""
    command = [sys.executable, "-m", "tests.deployment.rogue", str(_port(live))]
    command += [str(_certificates(live, hospital)), name, *actions]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 0, done.stderr
    told: list[str] = json.loads(done.stdout)
    assert len(told) == len(actions)
    return told


def test_a_hospital_cannot_register_as_another(live: RunningFederation) -> None:
    (told,) = _rogue(live, "south", "south", "register:north")

    assert "CommunicationError" in told and "token" not in told
    assert "failed to verify client identity: CNMismatch" in _log(live.coordinator)


@pytest.mark.full
def test_a_hospital_cannot_take_the_place_of_another_on_the_connection(live: RunningFederation) -> None:
    (told,) = _rogue(live, "south", "north", "register:north")

    assert "CommunicationError" in told
    assert "authenticated as 'south' but claimed endpoint 'north'" in _log(live.coordinator)


def test_a_hospital_reaches_neither_another_nor_the_machinery_of_the_coordinator(
    live: RunningFederation,
) -> None:
    own = _rogue(
        live,
        "south",
        "south",
        "register:south",
        # Files and life of another hospital, by commands that FLARE's client obeys whoever sends them.
        "admin:north:sys.shell:cat startup/client.key",
        "admin:north:train.shutdown:",
        "say:north:_net_manager:stop",
        "say:north:fedlens:ping",
        # The same of the coordinator.
        "admin:server:sys.shell:cat startup/server.key",
        "say:server:_net_manager:stop_cell",
        "say:server:_net_manager:config_vars",
        "say:server:server_command:x",
        "say:server:fedlens:submit",
        "say:server:hci_channel:command",
        # And once more with a forged sender.
        "pose:server",
        "admin:north:train.shutdown:",
    )

    assert own[0].startswith("token ") and own[-1].startswith("timeout")
    for told in own[1:-2]:
        assert "takes no FLARE job or command" in told, told
    log = _log(live.coordinator)
    assert "turned away: 'sys.shell' on channel 'admin' from 'south'" in log
    assert "turned away: 'ping' on channel 'fedlens' from 'south'" in log
    # Nothing even came as far as the other hospital.
    assert "turned away" not in _log(live.hospital("north"))
    token = own[0].removeprefix("token ")
    for place in _told(live):
        assert token not in place.read_text(errors="replace"), place
    for process in live.left():
        assert token not in " ".join(process.cmdline())


def test_a_hospitals_certificate_gives_no_command_over_the_coordinator(
    live: RunningFederation, tmp_path: Path
) -> None:
    def status(user: str) -> subprocess.CompletedProcess[str]:
        kit = Path(shutil.copytree(live.folder / "lead", tmp_path / user))
        for name in ("client.crt", "client.key"):
            shutil.copy(_certificates(live, "south") / name, kit / "flare" / "startup" / name)
        for path in (kit / "kit.json", kit / "flare" / "startup" / "fed_admin.json"):
            path.write_text(path.read_text().replace("lead@example.org", user))
        return run_fedlens("status", "--kit", str(kit))

    # In the lead's name, and in its own.
    with ThreadPoolExecutor(max_workers=2) as pool:
        tried = list(pool.map(status, ("lead@example.org", "south")))

    for done in tried:
        assert done.returncode == 8, done.stdout + done.stderr
        assert "No session with the coordinator" in done.stderr
        assert done.stdout == ""


def _job(folder: Path) -> tuple[Path, Path]:
    """A FLARE job whose code writes a file when it is loaded; returns the job and that file."""
    marker = folder / "it-ran"
    app = folder / "spy" / "app"
    for part in ("config", "custom"):
        (app / part).mkdir(parents=True)
    (app / "custom" / "spy.py").write_text(
        f"from nvflare.apis.executor import Executor\nopen({str(marker)!r}, 'w').close()\n"
        "class Spy(Executor):\n    pass\n"
    )
    executors = [{"tasks": ["*"], "executor": {"path": "spy.Spy", "args": {}}}]
    for name, content in (
        (app / "config" / "config_fed_client.json", {"executors": executors}),
        (app / "config" / "config_fed_server.json", {"workflows": []}),
    ):
        name.write_text(json.dumps({"format_version": 2, "components": [], **content}))
    (folder / "spy" / "meta.json").write_text(
        json.dumps({"name": "spy", "min_clients": 1, "deploy_map": {"app": ["server", "north"]}})
    )
    return folder / "spy", marker


def test_a_job_with_code_is_refused_at_the_coordinator_even_from_the_lead(
    live: RunningFederation, tmp_path: Path
) -> None:
    job, marker = _job(tmp_path)

    # FLARE's words for it: the job's files, which go before it, were not taken.
    with live.session() as session, pytest.raises(Exception, match="ERROR_SERVER_CONNECTION"):
        session._session.submit_job(str(job))

    assert re.search("turned away: .* from '_admin_", _log(live.coordinator))
    assert not list((live.coordinator / "jobs").rglob("meta*"))
    assert not marker.exists()


def _asked(live: RunningFederation, identity: Identity) -> dict[str, object]:
    """What the service answers to a message that somebody signed, sent straight to its socket."""
    ask = Ask("e" * 32, "5" * 64, "north", content_digest(b"request"), content_digest(b""))
    header = {ERRAND: ask.errand, STUDY: ask.study, SIGNATURE: ask.signed_by(identity).hex()}
    with connect(open_kit(live.hospital("north"), "hospital").socket) as connection:
        send_frame(connection, header, b"request", b"")
        return receive_frame(connection)[0]


def test_the_service_refuses_what_the_coordinator_did_not_sign(live: RunningFederation) -> None:
    own = open_kit(live.hospital("north"), "hospital").identity()
    other = open_kit(live.hospital("south"), "hospital").identity()
    # Whoever broke into the hospital's relay has no key at all; others have their own.
    for identity in (Identity.generate(COORDINATOR), own, other):
        told = _asked(live, identity)
        assert told[STATE] == FAILED and "not signed" in str(told[ERROR]), told
    told = _asked(live, open_kit(live.coordinator, "coordinator").identity())
    # That one is read, and found to be nothing.
    assert told[STATE] != DONE and "not signed" not in str(told[ERROR])


@pytest.mark.skipif(os.getuid() != 0, reason="only root can play another user")
def test_another_user_cannot_talk_to_the_service(live: RunningFederation) -> None:
    kit = read_kit(live.hospital("north"))
    attack = (
        "import os, socket, sys\n"
        f"os.setgroups([]), os.setgid({NOBODY}), os.setuid({NOBODY})\n"
        "connection = socket.socket(socket.AF_UNIX)\n"
        "connection.settimeout(10)\n"
        "connection.connect(f'/proc/self/fd/{sys.argv[1]}/service.sock')\n"
        "print(connection.recv(1))"
    )
    # The attacker is spared all folders above; run/ and the socket are closed to it all the same.
    run = os.open(kit.socket.parent, os.O_RDONLY)
    try:

        def attacked() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-c", attack, str(run)],
                capture_output=True,
                text=True,
                pass_fds=(run,),
                cwd="/",
                timeout=30,
                check=False,
            )

        assert "PermissionError" in attacked().stderr
        kit.socket.parent.chmod(0o755)
        assert "PermissionError" in attacked().stderr
        # Even where somebody opened both, it is asked who connects.
        kit.socket.chmod(0o666)
        done = attacked()
        assert done.stdout.strip() == "b''" or "Reset" in done.stderr, done
    finally:
        kit.socket.chmod(0o600)
        kit.socket.parent.chmod(0o700)
        os.close(run)
    live.wait_for_notice(kit.folder, f"A process of user {NOBODY} connected")


def _alone(images: Path, name: str) -> Study:
    """A short study of hospital north, in the clear."""
    return tiny_study(
        images,
        name,
        hospitals={"names": ("north",)},
        training={"passes": 1},
        federation={"rounds": 1, "minimum_hospitals": 1},
    )


@pytest.fixture(scope="module")
def studied(live: RunningFederation, images: Path) -> RunningFederation:
    """The federation after one study was refused and another one ran."""
    policy = live.hospital("north") / "policy.toml"
    policy.write_text(POLICY.format(sealing="required"))
    live.submit(_alone(images, "refused"))
    assert live.follow(_alone(images, "refused"))["state"] == "failed"
    policy.write_text(POLICY.format(sealing="optional"))
    live.submit(_alone(images, "agreed"))
    assert live.follow(_alone(images, "agreed"))["state"] == "finished"
    return live


def test_a_study_against_the_policy_is_refused_and_the_lead_is_told_why(
    studied: RunningFederation, images: Path
) -> None:
    status = studied.status(_alone(images, "refused"))

    assert status["state"] in ("failed", "interrupted")
    assert "sends nothing in the clear" in studied.notices(studied.hospital("north"))
    assert (
        not list(studied.hospital("north").glob("studies/*/join.bin"))
        or len(list(studied.hospital("north").glob("studies/*/join.bin"))) == 1
    )


def _secrets(folder: Path) -> dict[Path, list[bytes]]:
    """Forms in which each private key of the federation could be told: itself, hexadecimal, and base64."""
    found = {}
    for path in folder.rglob("*.key"):
        content = path.read_bytes()
        if path.name == "identity.key":
            raw = content
            lines: list[bytes] = []
        else:
            key = serialization.load_pem_private_key(content, None)
            assert isinstance(key, rsa.RSAPrivateKey)
            prime = key.private_numbers().p
            raw = prime.to_bytes((prime.bit_length() + 7) // 8, "big")
            lines = content.splitlines()[2:-2]
        # Of base64 what does not depend on where the key begins and ends in it.
        shifted = [base64.b64encode(bytes(skip) + raw)[4:-4] for skip in range(3)]
        found[path] = [raw, raw.hex().encode(), raw.hex().upper().encode(), *shifted, *lines]
    return found


def _told(live: RunningFederation) -> list[Path]:
    """Whatever the federation's processes wrote, keys and what was provisioned apart."""
    kits = [live.coordinator, *(live.folder / "hospitals").iterdir(), live.folder / "lead"]
    places = [place for kit in kits for place in (kit / "logs", kit / "run", kit / "studies", kit / "jobs")]
    written = [path for place in places for path in place.rglob("*") if path.is_file()]
    flare = [path for kit in kits for path in (kit / "flare").glob("*") if path.is_file()]
    local = [path for kit in kits for path in (kit / "flare" / "local").glob("*") if path.is_file()]
    return [*written, *flare, *local, *live.folder.glob("*.out")]


def test_no_private_key_is_told_in_logs_notices_studies_or_processes(studied: RunningFederation) -> None:
    secrets = _secrets(studied.folder)
    # The authority's; two of the coordinator and of each of four hospitals; the lead's.
    assert len(secrets) == 1 + 2 * 5 + 1
    said = {str(path): path.read_bytes() for path in _told(studied)}
    assert {"flare.log", "service.log", "log.txt", "audit.log", "notices", "submission.bin", "join.bin"} <= {
        Path(name).name for name in said
    }
    for process in studied.left():
        said[f"command line of {process.pid}"] = "\0".join(process.cmdline()).encode()
        said[f"environment of {process.pid}"] = "\0".join(
            f"{key}={value}" for key, value in process.environ().items()
        ).encode()
    assert sum(name.startswith("environment") for name in said) == 5

    for place, content in said.items():
        assert b"PRIVATE KEY" not in content, place
        for path, forms in secrets.items():
            assert not any(form in content for form in forms), (place, path)


def test_the_search_for_keys_would_find_one(live: RunningFederation) -> None:
    path = live.hospital("north") / "flare" / "startup" / "client.key"
    prime, *others = _secrets(live.folder)[path]
    seed, *forms = _secrets(live.folder)[live.hospital("north") / "identity.key"]

    assert any(line in path.read_bytes() for line in others)
    for skip in range(3):
        assert any(form in base64.b64encode(b"x" * skip + prime + b"more") for form in others)
        assert any(form in base64.b64encode(b"x" * skip + seed + b"more") for form in forms)


def test_no_other_user_can_read_a_key_or_a_log_or_enter_a_kit(studied: RunningFederation) -> None:
    def mode(path: Path) -> int:
        return stat.S_IMODE(path.stat().st_mode)

    keys = list(studied.folder.rglob("*.key"))
    assert {mode(path) for path in keys} == {0o600}
    kits = [studied.coordinator, studied.folder / "lead", *(studied.folder / "hospitals").iterdir()]
    assert {mode(kit) for kit in (*kits, studied.folder / "ca")} == {0o700}
    for kit in (studied.coordinator, studied.hospital("north")):
        assert mode(kit / "run") == mode(kit / "logs") == mode(kit / "flare") == 0o700
        assert mode(kit / "flare" / "log.txt") == 0o600
    assert mode(read_kit(studied.hospital("north")).socket) == 0o600


def test_a_hospital_refuses_a_job_with_code_from_a_coordinator_that_allows_everything(
    live: RunningFederation, tmp_path: Path
) -> None:
    job, marker = _job(tmp_path)
    live.stop("coordinator")
    kit = open_kit(live.coordinator, "coordinator")
    write_coordinator_config(kit.folder)
    local = kit.flare / "local"
    resources = json.loads((local / "resources.json").read_text())
    kept = [part for part in resources["components"] if part["id"] in ("job_manager", "job_store")]
    launcher = "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher"
    resources["components"] = [
        *kept,
        {"id": "job_scheduler", "path": "tests.deployment.rogue.EagerScheduler", "args": {"max_jobs": 1}},
        {"id": "process_launcher", "path": launcher, "args": {}},
    ]
    resources["class_list_enforcement_mode"] = "warn"
    (local / "resources.json").write_text(json.dumps(resources))
    anything = {"format_version": "1.0", "permissions": {"lead": "any"}}
    (local / "authorization.json").write_text(json.dumps(anything))
    live.start_process("gone bad", coordinator_command(kit))
    wait_until(lambda: "Re-activate the client: north" in _out(live), 90, "north is back")

    with live.session() as session:
        number = session._session.submit_job(str(job))

        def ended() -> dict[str, object] | None:
            meta: dict[str, object] = session._session.get_job_meta(number)
            return meta if str(meta["status"]).startswith("FINISHED") else None

        meta = wait_until(ended, 60, "an end of the job")

    assert meta["status"] == "FINISHED:FAILED_TO_RUN"
    refused = "north: north takes no FLARE job or command, FedLens studies only"
    assert meta["job_deploy_detail"][:2] == ["server: OK", refused]
    assert not marker.exists()
    assert not list((live.hospital("north") / "flare").rglob("spy.py"))
    assert "turned away: 'admin' on channel 'admin' from 'server'" in _log(live.hospital("north"))


def _out(live: RunningFederation) -> str:
    return (live.folder / "gone bad.out").read_text()
