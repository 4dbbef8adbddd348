"""A real Orthanc that only its own network namespace can reach."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

DICOM_PORT, WEB_PORT, MOVE_PORT = 11112, 18042, 11113
TITLE, USER, PASSWORD = "ORTHANC", "reader", "known only here"
URL = f"http://127.0.0.1:{WEB_PORT}"
PROGRAM = shutil.which("Orthanc", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PLUGINS = [Path("/usr/share/orthanc/plugins"), Path("/usr/lib/orthanc")]


def plugin() -> Path | None:
    """The DICOMweb plugin, where it is installed."""
    return next((file for folder in _PLUGINS for file in folder.glob("libOrthancDicomWeb.so*")), None)


def namespace() -> list[str] | None:
    """A command prefix that runs the rest in a network namespace with loopback only; None if not allowed."""
    unshare, ip = shutil.which("unshare"), shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if unshare is None or ip is None:
        return None
    for flags in (["-n"], ["-rn"]):
        prefix = [unshare, *flags, "sh", "-c", f'{ip} link set lo up && exec "$@"', "sh"]
        if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode == 0:
            return prefix
    return None


@contextmanager
def running(folder: Path) -> Iterator[None]:
    """Orthanc with an empty store in ``folder``, until the block ends. Only call it within a namespace."""
    assert PROGRAM is not None
    settings = {
        "Name": TITLE,
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "HttpPort": WEB_PORT,
        "DicomPort": DICOM_PORT,
        "DicomAet": TITLE,
        "DicomCheckCalledAet": True,
        "AuthenticationEnabled": True,
        "RemoteAccessAllowed": False,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomModalities": {"fedlens": ["FEDLENS", "127.0.0.1", MOVE_PORT]},
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "Plugins": [str(plugin())],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "orthanc.log").open("w") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        _wait(process, folder / "orthanc.log")
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(150):
        if process.poll() is not None:
            break
        try:
            if requests.get(f"{URL}/system", auth=(USER, PASSWORD), timeout=2).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.2)
    raise AssertionError(f"Orthanc does not answer:\n{log.read_text()[-3000:]}")
