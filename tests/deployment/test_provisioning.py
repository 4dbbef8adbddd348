"""Provisioning with FLARE's real commands: joining, leaving, new keys, and everything that is refused."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.deployment.conftest import NAMES

from fedlens.deployment.exchange import encode_request, read_approval, read_request
from fedlens.deployment.federation import Federation
from fedlens.deployment.flare_commands import make_tls_request
from fedlens.deployment.joining import accept_members, install, make_request
from fedlens.deployment.kit import open_kit
from fedlens.deployment.members import load_members, save_members
from fedlens.deployment.provisioning import Provisioned, provision
from fedlens.deployment.rehearsal import rehearse
from fedlens.errors import DeploymentError
from fedlens.protocol.roster import Identity

Contents = dict[Path, bytes]


def _contents(*folders: Path) -> Contents:
    return {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}


def _kits(folder: Path) -> list[Path]:
    return [folder / "coordinator", folder / "lead", *(folder / "hospitals" / name for name in NAMES)]


def _with(federation: Federation, *hospitals: str) -> Federation:
    return federation.model_copy(update={"hospitals": hospitals})


def _altered(zip_file: Path, entry: str, change: Callable[[bytes], bytes]) -> None:
    with zipfile.ZipFile(zip_file) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    entries[entry] = change(entries[entry])
    with zipfile.ZipFile(zip_file, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def _flip(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.fixture(scope="session")
def home(federation: Federation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital named fifth that has made its request; not to be changed."""
    folder = tmp_path_factory.mktemp("fifth") / "kit"
    make_request("fifth", _with(federation, *NAMES, "fifth"), folder)
    return folder


@pytest.fixture(scope="session")
def joined(
    federation: Federation, federation_folder: Path, home: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Provisioned]:
    """The lead's folder after fifth was approved; not to be changed."""
    folder = Path(shutil.copytree(federation_folder, tmp_path_factory.mktemp("joined") / "chest"))
    shutil.copy(home / "fifth.request.zip", folder / "requests")
    return folder, provision(_with(federation, *NAMES, "fifth"), folder)


def test_a_rehearsal_leaves_nothing_to_do(federation: Federation, own_folder: Path) -> None:
    before = _contents(own_folder)

    result = provision(federation, own_folder)

    assert (result.waiting, result.approved, result.removed, result.left) == ((), (), (), ())
    assert not result.changed
    assert list(result.members.hospitals) == list(NAMES)
    assert _contents(own_folder) == before


def test_members_are_everywhere_the_same(federation_folder: Path) -> None:
    members = load_members(federation_folder / "members.json")

    for kit in _kits(federation_folder):
        if kit.name != "lead":
            assert load_members(kit / "members.json") == members
    for name in NAMES:
        assert read_approval(federation_folder / "approved" / f"{name}.approved.zip").members == members


def test_nothing_secret_is_sent(federation_folder: Path) -> None:
    secrets = [path.read_bytes() for path in federation_folder.rglob("identity.key")]
    assert len(secrets) == len(NAMES) + 1

    def check(content: bytes) -> None:
        assert b"PRIVATE KEY" not in content
        assert not any(secret in content for secret in secrets)
        if zipfile.is_zipfile(io.BytesIO(content)):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                for name in archive.namelist():
                    check(archive.read(name))

    sent = [*federation_folder.glob("*/*.request.zip"), *federation_folder.glob("*/*.approved.zip")]
    assert len(sent) == 2 * len(NAMES)
    for path in [*sent, federation_folder / "members.json"]:
        check(path.read_bytes())


def test_certificates_say_what_each_is_for(federation_folder: Path) -> None:
    def facts(path: str) -> tuple[str, str]:
        subject = x509.load_pem_x509_certificate((federation_folder / path).read_bytes()).subject
        name = subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
        organisation = subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value
        return str(name), str(organisation)

    assert facts("hospitals/north/flare/startup/client.crt") == ("north", "hospital_north")
    assert facts("coordinator/flare/startup/server.crt") == ("localhost", "coordinator")
    assert facts("lead/flare/startup/client.crt") == ("lead@example.org", "coordinator")


def test_no_users_home_is_written_to(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()

    make_request("north", federation, tmp_path / "kit")

    assert list((tmp_path / "home").iterdir()) == []


def test_a_hospital_added_later_leaves_every_kit_as_it_is(
    federation_folder: Path, joined: tuple[Path, Provisioned]
) -> None:
    folder, result = joined

    assert (result.approved, result.waiting, result.changed) == (("fifth",), (), True)
    assert list(result.members.hospitals) == [*NAMES, "fifth"]
    for old, new in zip(_kits(federation_folder), _kits(folder), strict=True):
        before = {path.relative_to(old): content for path, content in _contents(old).items()}
        after = {path.relative_to(new): content for path, content in _contents(new).items()}
        if new.name == "coordinator":
            # The coordinator alone has to know at once.
            assert before.pop(Path("members.json")) != after.pop(Path("members.json"))
        assert before == after


def test_a_hospital_added_later_installs_its_kit_and_the_others_take_it_in(
    joined: tuple[Path, Provisioned], home: Path, tmp_path: Path
) -> None:
    folder, result = joined
    kit = Path(shutil.copytree(home, tmp_path / "kit"))
    fingerprint = result.members.fingerprint()

    made = install(folder / "approved" / "fifth.approved.zip", kit, fingerprint=fingerprint.lower())

    assert open_kit(kit, "hospital") == made
    assert made.members() == result.members
    assert sorted(path.name for path in kit.iterdir()) == [
        *("flare", "identity.key", "kit.json", "members.json", "policy.toml")
    ]
    north = Path(shutil.copytree(folder / "hospitals" / "north", tmp_path / "north"))
    accept_members(north, folder / "members.json", fingerprint=fingerprint)
    assert open_kit(north, "hospital").members() == result.members


def test_an_installed_kit_is_overwritten_by_nothing(
    federation: Federation, federation_folder: Path, joined: tuple[Path, Provisioned]
) -> None:
    folder, result = joined
    kit = folder / "hospitals" / "north"
    before = _contents(kit)

    with pytest.raises(DeploymentError, match="is installed already"):
        make_request("north", federation, kit)
    with pytest.raises(DeploymentError, match="is installed already"):
        install(folder / "approved" / "north.approved.zip", kit, fingerprint=result.members.fingerprint())
    with pytest.raises(DeploymentError, match="is the kit of hospital north"):
        make_request("south", federation, kit, rotate=True)
    assert _contents(kit) == before


@pytest.mark.parametrize("maker", ["lead", "hospital"])
def test_a_folder_that_holds_something_else_is_left_alone(
    federation: Federation, tmp_path: Path, maker: str
) -> None:
    (tmp_path / "thesis.txt").write_text("precious")

    with pytest.raises(DeploymentError, match="holds no"):
        if maker == "lead":
            provision(federation, tmp_path)
        else:
            make_request("north", federation, tmp_path)

    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_request_made_again_keeps_the_signing_key(
    federation: Federation, home: Path, tmp_path: Path
) -> None:
    kit = Path(shutil.copytree(home, tmp_path / "kit"))
    first = read_request(kit / "fifth.request.zip")

    made = make_request("fifth", _with(federation, "fifth"), kit)

    second = read_request(made.file)
    assert second.key == first.key
    assert second.flare != first.flare


def test_a_stranger_makes_no_request(federation: Federation, tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="lists no hospital 'stranger'"):
        make_request("stranger", federation, tmp_path / "kit")
    with pytest.raises(DeploymentError, match="no keys to rotate"):
        make_request("north", federation, tmp_path / "kit", rotate=True)
    assert not (tmp_path / "kit").exists()


def test_a_request_of_a_hospital_not_listed_is_named_and_left(
    federation: Federation, own_folder: Path, home: Path
) -> None:
    request = Path(shutil.copy(home / "fifth.request.zip", own_folder / "requests"))
    before = _contents(own_folder)

    result = provision(federation, own_folder)

    assert result.left == (request,)
    assert _contents(own_folder) == before


def test_a_second_request_of_an_approved_name_is_refused(
    federation: Federation, own_folder: Path, tmp_path: Path
) -> None:
    made = make_request("north", federation, tmp_path / "intruder")
    shutil.copy(made.file, own_folder / "requests")
    before = _contents(own_folder)

    with pytest.raises(DeploymentError, match="is a second request of north") as caught:
        provision(federation, own_folder)

    assert "--rotate north" in caught.value.fix and "phone" in caught.value.fix
    assert _contents(own_folder) == before


def test_new_keys(federation: Federation, own_folder: Path) -> None:
    kit = own_folder / "hospitals" / "north"
    others = [path for path in _kits(own_folder) if path.name not in ("north", "coordinator")]
    untouched = _contents(*others)
    in_use = _contents(kit)

    made = make_request("north", federation, kit, rotate=True)
    # Until the new keys are installed, the old ones work.
    assert {path: path.read_bytes() for path in in_use} == in_use
    assert {path.stat().st_mode & 0o777 for path in (kit / "next").rglob("*.key")} == {0o600}
    shutil.copy(made.file, own_folder / "requests")
    result = provision(federation, own_folder, rotate=["north"])
    fingerprint = result.members.fingerprint()
    install(own_folder / "approved" / "north.approved.zip", kit, fingerprint=fingerprint)

    assert (result.approved, result.changed) == (("north",), True)
    assert list(result.members.hospitals) == list(NAMES)
    now = open_kit(kit, "hospital")
    assert now.identity().public() == result.members.hospitals["north"]
    assert not (kit / "next").exists() and not made.file.exists()
    changed = {path.name for path, content in _contents(kit).items() if in_use.get(path) != content}
    assert changed == {"identity.key", "members.json", "client.crt", "client.key"}
    assert _contents(*others) == untouched
    assert not provision(federation, own_folder).changed


def test_new_keys_need_a_request_with_new_keys(federation: Federation, own_folder: Path) -> None:
    for names, message in ((["north"], "No request of north with new keys"), (["fifth"], "'fifth' is not")):
        with pytest.raises(DeploymentError, match=message):
            provision(federation, own_folder, rotate=names)


def test_a_hospital_leaves_and_comes_back(federation: Federation, own_folder: Path) -> None:
    smaller = _with(federation, *NAMES[1:])
    disabled = own_folder / "coordinator" / "flare" / "disabled_clients.json"

    with pytest.raises(DeploymentError, match="still lists north"):
        provision(federation, own_folder, remove=["north"])
    with pytest.raises(DeploymentError, match="no longer lists north") as caught:
        provision(smaller, own_folder)
    assert "--remove north" in caught.value.fix
    others = _contents(*(kit for kit in _kits(own_folder) if kit.name != "coordinator"))
    result = provision(smaller, own_folder, remove=["north"])

    assert (result.removed, result.changed, list(result.members.hospitals)) == (
        ("north",),
        True,
        [*NAMES[1:]],
    )
    assert json.loads(disabled.read_bytes()) == {"disabled_clients": ["north"]}
    assert _contents(*(kit for kit in _kits(own_folder) if kit.name != "coordinator")) == others
    assert not (own_folder / "approved" / "north.approved.zip").exists()
    assert provision(smaller, own_folder).removed == ("north",)

    # Listed again, it has to ask again; asking is not enough to be let in before the lead ran this.
    assert provision(federation, own_folder).waiting == ("north",)
    assert json.loads(disabled.read_bytes()) == {"disabled_clients": ["north"]}
    shutil.rmtree(own_folder / "hospitals" / "north")
    result = rehearse(federation, own_folder)
    assert (result.removed, result.waiting) == ((), ())
    assert json.loads(disabled.read_bytes()) == {"disabled_clients": []}


def test_a_request_altered_on_its_way_is_refused(
    federation: Federation, own_folder: Path, home: Path
) -> None:
    wider = _with(federation, *NAMES, "fifth")
    for entry, change, message in (
        ("request.json", lambda text: text.replace(b'"format": 1', b'"format": 2'), "not signed by the key"),
        ("request.sig", _flip, "not signed by the key"),
        ("flare.zip", _flip, "not the one it was signed with"),
    ):
        path = Path(shutil.copy(home / "fifth.request.zip", own_folder / "requests"))
        _altered(path, entry, change)
        with pytest.raises(DeploymentError, match=message) as caught:
            provision(wider, own_folder)
        assert str(path) in caught.value.what
    assert "fifth" not in load_members(own_folder / "members.json").hospitals


@pytest.mark.parametrize(
    ("kind", "name", "fact"), [("lead", "fifth@example.org", "name"), ("coordinator", "fifth", "kind")]
)
def test_flare_certifies_no_lead_and_no_server_in_a_hospitals_name(
    federation: Federation, tmp_path: Path, kind: str, name: str, fact: str
) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    flare = make_tls_request(federation, kind, name, folder).read_bytes()  # type: ignore[arg-type]
    path = tmp_path / "fifth.request.zip"
    path.write_bytes(encode_request("chest", Identity.generate("fifth"), flare))

    with pytest.raises(DeploymentError, match=f"asks FLARE to certify {fact}"):
        read_request(path)


def test_a_request_under_another_name_or_federation_is_refused(
    federation: Federation, own_folder: Path, home: Path
) -> None:
    shutil.copy(home / "fifth.request.zip", own_folder / "requests" / "sixth.request.zip")

    with pytest.raises(DeploymentError, match="is the request of fifth in federation chest"):
        provision(_with(federation, *NAMES, "fifth", "sixth"), own_folder)


def test_two_hospitals_with_one_key_are_refused(federation: Federation, own_folder: Path, home: Path) -> None:
    twin = own_folder / "twin"
    twin.mkdir()
    shutil.copy(home / "identity.key", twin)
    (twin / "request").mkdir()
    wider = _with(federation, *NAMES, "fifth", "twin")
    made = make_request("twin", wider, twin)
    for path in (made.file, home / "fifth.request.zip"):
        shutil.copy(path, own_folder / "requests")

    with pytest.raises(DeploymentError, match="stands in it twice"):
        provision(wider, own_folder)


def test_facts_that_stand_in_every_kit_cannot_be_changed(federation: Federation, own_folder: Path) -> None:
    before = _contents(own_folder)
    for update in ({"port": 1}, {"coordinator": "other"}, {"name": "other"}, {"lead": "x@example.org"}):
        with pytest.raises(DeploymentError, match="the federation file says otherwise"):
            provision(federation.model_copy(update=update), own_folder)
    assert _contents(own_folder) == before


def _install_refused(approved: Path, home: Path, tmp_path: Path, fingerprint: str, message: str) -> None:
    kit = Path(shutil.copytree(home, tmp_path / "refused"))
    before = _contents(kit)
    with pytest.raises(DeploymentError, match=message) as caught:
        install(approved, kit, fingerprint=fingerprint)
    assert caught.value.fix
    assert _contents(kit) == before
    shutil.rmtree(kit)


def test_an_approval_altered_on_its_way_is_refused(
    joined: tuple[Path, Provisioned], home: Path, tmp_path: Path
) -> None:
    folder, result = joined
    fingerprint = result.members.fingerprint()
    for entry, change, message in (
        (
            "approval.json",
            lambda text: text.replace(b"localhost", b"elsewhere"),
            "not signed by its coordinator",
        ),
        ("approval.sig", _flip, "not signed by its coordinator"),
        ("flare.zip", _flip, r"flare\.zip is not the one"),
        ("members.json", lambda text: text + b"\n", r"members\.json is not the one"),
        ("members.json", lambda text: text.replace(b'"fifth"', b'"sixth"'), "is not a list of members"),
    ):
        path = Path(shutil.copy(folder / "approved" / "fifth.approved.zip", tmp_path))
        _altered(path, entry, change)
        _install_refused(path, home, tmp_path, fingerprint, message)


def test_an_approval_is_refused_if_the_phone_says_otherwise(
    joined: tuple[Path, Provisioned], home: Path, tmp_path: Path
) -> None:
    folder, result = joined
    approved = folder / "approved"
    fingerprint = result.members.fingerprint()
    wrong = fingerprint[:-1] + ("0" if fingerprint[-1] != "0" else "1")

    _install_refused(approved / "fifth.approved.zip", home, tmp_path, wrong, "The members' fingerprint is")
    _install_refused(approved / "fifth.approved.zip", home, tmp_path, "", "The members' fingerprint is")
    # Another hospital's approval, and one for keys that are not at home.
    _install_refused(approved / "north.approved.zip", home, tmp_path, fingerprint, "another key for north")


def test_an_approval_for_another_tls_key_is_refused_by_flare(
    federation: Federation, joined: tuple[Path, Provisioned], home: Path, tmp_path: Path
) -> None:
    folder, result = joined
    kit = Path(shutil.copytree(home, tmp_path / "kit"))
    make_request("fifth", _with(federation, "fifth"), kit)

    _install_refused(
        folder / "approved" / "fifth.approved.zip",
        kit,
        tmp_path,
        result.members.fingerprint(),
        r"FLARE refuses \(package\)",
    )


def test_members_are_taken_only_from_the_same_federation_and_with_the_own_key(
    federation_folder: Path, own_folder: Path, tmp_path: Path
) -> None:
    kit = own_folder / "hospitals" / "north"
    members = load_members(own_folder / "members.json")
    before = _contents(kit)
    key = Identity.generate("new").public()
    changed = {
        "another than the one this kit trusts": {"coordinator": key},
        "another key for north": {"hospitals": {**members.hospitals, "north": key}},
        "or none": {"hospitals": {"south": members.hospitals["south"]}},
        "is of federation other": {"federation": "other"},
    }
    for message, change in changed.items():
        newer = type(members)(**{**vars(members), **change})
        save_members(tmp_path / "members.json", newer)
        with pytest.raises(DeploymentError, match=message):
            accept_members(kit, tmp_path / "members.json", fingerprint=newer.fingerprint())
    with pytest.raises(DeploymentError, match="The members' fingerprint is"):
        accept_members(kit, own_folder / "members.json", fingerprint="0000")
    assert _contents(kit) == before


@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_file_is_refused_or_means_the_same(
    home: Path, joined: tuple[Path, Provisioned], tmp_path: Path, data: st.DataObject
) -> None:
    request = home / "fifth.request.zip"
    approval = joined[0] / "approved" / "fifth.approved.zip"
    source, read = data.draw(st.sampled_from([(request, read_request), (approval, read_approval)]))
    content = bytearray(source.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "fifth.zip"
    damaged.write_bytes(content[: data.draw(st.sampled_from([len(content), place]))])

    try:
        result = read(damaged)
    except DeploymentError as error:
        assert str(damaged) in error.what
    else:
        # Only what a zip file does not need may differ, such as an entry's date.
        assert result == read(source)


@pytest.mark.parametrize("entries", [["a"], [], ["request.json", "request.sig", "flare.zip", "../x"]])
def test_a_zip_file_of_other_entries_is_refused(tmp_path: Path, entries: list[str]) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in entries:
            archive.writestr(name, "{}")

    with pytest.raises(DeploymentError, match="other files"):
        read_request(path)


def test_a_large_entry_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("request.json", "request.sig", "flare.zip"):
            archive.writestr(name, bytes(2 << 20))

    with pytest.raises(DeploymentError, match="too large"):
        read_request(path)
