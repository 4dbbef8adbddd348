"""Kits: who may read them, what is refused, and that a moved one works."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.deployment.conftest import NAMES

from fedlens.deployment.federation import Federation
from fedlens.deployment.flare_config import write_coordinator_config, write_hospital_config
from fedlens.deployment.kit import Kind, open_kit, read_kit
from fedlens.errors import DeploymentError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())


def test_every_private_key_and_its_folder_is_closed_to_others(federation_folder: Path) -> None:
    private = [
        path
        for path in federation_folder.rglob("*")
        if path.is_file() and (path.suffix == ".key" or b"PRIVATE KEY" in path.read_bytes())
    ]

    # The authority's, two of each hospital and of the coordinator, one of the lead.
    assert len(private) == 1 + 2 * (len(NAMES) + 1) + 1
    assert {_mode(path) for path in private} == {0o600}
    assert {_mode(path.parent) for path in private} == {0o700}
    kits = [path.parent for path in federation_folder.rglob("kit.json")]
    assert {_mode(kit) for kit in kits} == {0o700}
    assert {_mode(kit / "flare" / part) for kit in kits for part in ("", "local", "startup")} == {0o700}


def test_kits_say_whose_they_are(federation_folder: Path, federation: Federation) -> None:
    coordinator = open_kit(federation_folder / "coordinator", "coordinator")
    lead = open_kit(federation_folder / "lead", "lead")
    north = open_kit(federation_folder / "hospitals" / "north", "hospital")

    assert (coordinator.name, lead.name, north.name) == ("coordinator", "lead@example.org", "north")
    for kit in (coordinator, lead, north):
        assert (kit.federation, kit.host, kit.port) == ("chest", "localhost", federation.port)
    assert coordinator.identity().public() == north.members().coordinator
    assert north.identity().public() == coordinator.members().hospitals["north"]
    assert (coordinator.studies.is_dir(), north.policy.is_file()) == (True, True)
    assert north.socket == north.folder / "run" / "service.sock"
    assert (coordinator.organisation, north.organisation) == ("coordinator", "hospital_north")


@pytest.mark.parametrize(
    ("place", "kind", "message"),
    [
        ("lead", "coordinator", "is the kit of a lead, not of a coordinator"),
        ("coordinator", "hospital", "is the kit of a coordinator, not of a hospital"),
        ("requests", "hospital", "is no kit"),
        ("nowhere", "hospital", "is no kit"),
    ],
)
def test_another_kind_of_kit_is_refused(
    federation_folder: Path, place: str, kind: Kind, message: str
) -> None:
    with pytest.raises(DeploymentError, match=message) as caught:
        open_kit(federation_folder / place, kind)

    assert caught.value.fix
    assert caught.value.exit_code == 8


@pytest.mark.parametrize("key", ["identity.key", "flare/startup/client.key"])
def test_a_key_that_others_may_read_is_refused_with_the_command(own_folder: Path, key: str) -> None:
    kit = own_folder / "hospitals" / "north"
    (kit / key).chmod(0o640)

    with pytest.raises(DeploymentError, match=r"\(mode 0640\)") as caught:
        open_kit(kit, "hospital")

    assert f"chmod 600 {kit / key}" in caught.value.fix


@pytest.mark.parametrize("part", ["identity.key", "members.json", "flare/startup", "flare/local"])
def test_an_incomplete_kit_is_refused(own_folder: Path, part: str) -> None:
    kit = own_folder / "hospitals" / "north"
    (kit / part).rename(own_folder / "away")

    with pytest.raises(DeploymentError, match=f"lacks {part}"):
        open_kit(kit, "hospital")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"kind": "other", "name": "north"}'])
def test_a_damaged_kit_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "kit.json").write_text(content)

    with pytest.raises(DeploymentError, match=r"Cannot read .*kit\.json"):
        read_kit(tmp_path)


def test_a_damaged_key_is_refused(own_folder: Path) -> None:
    kit = open_kit(own_folder / "hospitals" / "north", "hospital")
    (kit.folder / "identity.key").write_bytes(b"short")

    with pytest.raises(DeploymentError, match="holds 5 bytes, not a key of 32"):
        kit.identity()


def test_a_moved_coordinator_finds_its_jobs_again(own_folder: Path, tmp_path: Path) -> None:
    kit = Path(shutil.move(own_folder / "coordinator", tmp_path / "moved"))
    write_coordinator_config(kit)

    text = (kit / "flare" / "local" / "resources.json").read_text()
    assert f'"{kit}/jobs/store"' in text and f'"{kit}/jobs/snapshots"' in text
    opened = open_kit(kit, "coordinator")
    assert opened.identity().public() == opened.members().coordinator
    # FLARE's own files name no place either.
    for path in (kit / "flare").rglob("*.json"):
        assert str(own_folder) not in path.read_text()


def test_writing_configurations_again_changes_nothing(own_folder: Path) -> None:
    for kit, write in (
        (own_folder / "coordinator", write_coordinator_config),
        (own_folder / "hospitals" / "north", write_hospital_config),
    ):
        write(kit)
        before = {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}
        write(kit)

        assert before == {path: path.read_bytes() for path in kit.rglob("*") if path.is_file()}


def test_rights_that_somebody_widened_are_narrow_again(own_folder: Path) -> None:
    kit = own_folder / "hospitals" / "north"
    rights = kit / "flare" / "local" / "authorization.json"
    narrow = rights.read_bytes()
    rights.write_text(json.dumps({"format_version": "1.0", "permissions": {"lead": "any"}}))

    write_hospital_config(kit)

    assert rights.read_bytes() == narrow


def test_no_class_may_be_named_by_a_job_and_nothing_could_start_one(federation_folder: Path) -> None:
    hospital = _json(federation_folder / "hospitals" / "north" / "flare" / "local" / "resources.json")
    coordinator = _json(federation_folder / "coordinator" / "flare" / "local" / "resources.json")

    assert hospital["class_allow_list"] == []
    assert coordinator["class_allow_list"] == []
    assert {hospital["class_list_enforcement_mode"], coordinator["class_list_enforcement_mode"]} == {
        "enforce"
    }
    assert hospital["allow_log_streaming"] is False
    names = [component["path"].rpartition(".")[2] for component in hospital["components"]]
    assert names == ["GPUResourceManager", "GPUResourceConsumer", "Relay"]
    names = [component["path"].rpartition(".")[2] for component in coordinator["components"]]
    assert names == ["DefaultJobScheduler", "SimpleJobDefManager", "FilesystemStorage", "Desk"]


EVERY_RIGHT = (
    "fedlens",
    *("submit_job", "clone_job", "byoc", "app_command", "get_job_log", "list_job", "report_version"),
    *("abort_job", "delete_job", "delete_workspace", "configure_job_log", "download_job"),
    *("check_status", "list_jobs", "get_job_meta", "show_stats"),
    *("shutdown", "restart", "disable_client", "enable_client", "remove_client", "sys_info", "report_env"),
    *("cat", "grep", "head", "ls", "pwd", "tail"),
)
VIEW = {"check_status", "list_jobs", "get_job_meta", "show_stats"}
OPERATE = {
    "shutdown",
    "restart",
    "disable_client",
    "enable_client",
    "remove_client",
    "sys_info",
    "report_env",
}


def _allowed(kit: Path, organisation: str, *, role: str = "lead") -> set[str]:
    """FLARE's verdict on every right, for a user of the coordinator's organisation."""
    from nvflare.fuel.sec.authz import AuthzContext, Person
    from nvflare.security.security import FLAuthorizer

    authorizer = FLAuthorizer(organisation, _json(kit / "flare" / "local" / "authorization.json"))
    user = Person("lead@example.org", "coordinator", role)
    return {
        right for right in EVERY_RIGHT if authorizer.authorize(AuthzContext(right, user, user))[0] is True
    }


def test_nobody_may_do_more_at_a_hospital_than_look(federation_folder: Path) -> None:
    kit = federation_folder / "hospitals" / "north"

    assert _allowed(kit, "hospital_north") == VIEW
    assert _allowed(kit, "coordinator") == VIEW
    for role in ("project_admin", "org_admin", "member"):
        assert _allowed(kit, "hospital_north", role=role) == set()


def test_the_lead_may_command_the_desk_and_nobody_may_send_a_job(federation_folder: Path) -> None:
    kit = federation_folder / "coordinator"

    wanted = {"fedlens", "report_version", *VIEW, *OPERATE}
    assert _allowed(kit, "coordinator") == wanted
    assert _allowed(kit, "elsewhere") == wanted - OPERATE - {"report_version"}
    for role in ("project_admin", "org_admin", "member"):
        assert _allowed(kit, "coordinator", role=role) == set()


def test_opening_a_kit_imports_neither_torch_nor_flare() -> None:
    code = (
        "import sys, fedlens.deployment.kit, fedlens.deployment.federation, fedlens.deployment.members\n"
        "import fedlens.deployment.joining, fedlens.deployment.provisioning, fedlens.deployment.rehearsal\n"
        "assert not {'torch', 'nvflare'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
