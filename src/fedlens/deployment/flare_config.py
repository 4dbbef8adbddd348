"""What FLARE may do at a site: its components, the classes a job may name, and who has which right.

Both functions write KIT/flare/local/resources.json, authorization.json and comm_config.json, whole and the
same each time, so they run at every start: a kit that was moved finds its job store again, and rights that
somebody widened by hand are narrow again. What a hospital agrees to is set in its policy.toml.

FLARE's rights, by what they cover (nvflare/security/security.py and the ``authz_func`` of each command):

``submit_job``
    Send a job; asked again at every site that a job is deployed to.
``clone_job``
    Send a job once more.
``manage_job``
    Abort or delete a job, delete its workspace, set its log level.
``download_job``
    Fetch a finished job.
``view``
    List jobs, a job's facts, status and counters of a site.
``operate``
    Facts about a site's machine; restart it, shut it down; let clients go, disable and enable them.
``shell_commands``
    cat, grep, head, ls, pwd and tail in the site's workspace.
``byoc``
    Bring code along in a job.
``app_command``, ``get_job_log``, ``list_job``, ``report_version``, ``fedlens``
    In no category: a right of their own each. ``fedlens`` is the desk's own command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fedlens.deployment.kit import FLARE_NAME
from fedlens.files import write_json
from fedlens.protocol.encoding import MOST_HOSPITALS

DESK = "fedlens.deployment.desk.Desk"
COMMAND = "fedlens"
RELAY = "fedlens.deployment.relay.Relay"

_LEAD = "lead"
_MOST_JOBS = 4
_INTERNAL = {
    # Every FLARE process listens for its jobs on a port of this machine. None will come, and without this any
    # user of the machine could connect there in plain text, as whoever they say they are.
    "scheme": "tcp",
    "resources": {"host": "localhost", "secure": True, "connection_security": "mtls"},
}
_COMMON_RIGHTS = (
    "submit_job",
    "clone_job",
    "manage_job",
    "download_job",
    "operate",
    "shell_commands",
    "byoc",
    "server-predeployed-flwr",
    "app_command",
    "get_job_log",
    "list_job",
    "download_job_components",
    "report_version",
)


def write_hospital_config(kit_folder: Path) -> None:
    """Let a hospital's FLARE client relay messages, and run nothing.

    No FLARE job runs at a hospital. Nobody has the right to send one; no class may be named by one; and no
    job launcher is there, so that none could be started even if the coordinator, which tells a client
    who asks and in what role, lied about that.
    """
    components = [
        {
            "id": "resource_manager",
            "path": "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager",
            "args": {"num_of_gpus": 0, "mem_per_gpu_in_GiB": 0, "expiration_period": 300},
        },
        {
            "id": "resource_consumer",
            "path": "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer",
            "args": {},
        },
        {"id": "fedlens_relay", "path": RELAY, "args": {}},
    ]
    resources = {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [],
        "allow_log_streaming": False,
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": components,
    }
    _write(kit_folder, resources, {})


def write_coordinator_config(kit_folder: Path) -> None:
    """Let the coordinator's FLARE server run FedLens's desk, for the lead, and nothing else.

    A study is no FLARE job: the desk lives in the server itself. So here too nobody may send a job, and no
    job launcher could start one.

    Jobs and snapshots lie in KIT/jobs, by absolute path, since FLARE resolves relative ones against the
    folder a service was started in.
    """
    jobs = kit_folder.absolute() / "jobs"
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    snapshots = {"path": storage, "args": {"root_dir": str(jobs / "snapshots"), "uri_root": "/"}}
    components = [
        {
            "id": "job_scheduler",
            "path": "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler",
            "args": {"max_jobs": _MOST_JOBS},
        },
        {
            "id": "job_manager",
            "path": "nvflare.apis.impl.job_def_manager.SimpleJobDefManager",
            "args": {"uri_root": str(jobs / "store"), "job_store_id": "job_store"},
        },
        {"id": "job_store", "path": storage},
        {"id": "fedlens_desk", "path": DESK, "args": {}},
    ]
    resources = {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [],
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": MOST_HOSPITALS,
                "heart_beat_timeout": 600,
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor.StorageStatePersistor",
            "args": {"uri_root": "/", "storage": snapshots},
        },
        "components": components,
    }
    rights = {COMMAND: "any", "operate": "o:site", "report_version": "o:site"}
    _write(kit_folder, resources, rights)


def _write(kit_folder: Path, resources: dict[str, Any], rights: dict[str, str]) -> None:
    """Resources as they are; for the lead the rights given and ``view``, for any other role none at all."""
    local = kit_folder / FLARE_NAME / "local"
    permissions = {_LEAD: {**dict.fromkeys(_COMMON_RIGHTS, "none"), "view": "any", **rights}}
    write_json(local / "resources.json", resources)
    write_json(local / "authorization.json", {"format_version": "1.0", "permissions": permissions})
    write_json(local / "comm_config.json", {"allow_adhoc_conns": False, "internal": _INTERNAL})
