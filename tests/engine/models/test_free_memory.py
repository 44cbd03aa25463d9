"""Free memory of a machine and of control groups of both versions, read from files made here."""

from types import SimpleNamespace

import pytest

from metashot.engine.models import free_memory as module
from metashot.engine.models.free_memory import free_memory


@pytest.fixture(autouse=True)
def hundred_bytes(monkeypatch):
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=100))
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)


def write(root, **files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def second_version(root, group, most, used, cache=0):
    place = f"sys/fs/cgroup/{group}".rstrip("/")
    write(root, **{f"{place}/memory.max": f"{most}\n", f"{place}/memory.current": f"{used}\n",
                   f"{place}/memory.stat": f"anon 1\ninactive_file {cache}\n"})  # fmt: skip


def test_without_control_groups_the_machine_decides(tmp_path):
    assert free_memory(root=tmp_path) == 100


def test_a_group_allows_its_limit_less_what_is_used_page_cache_aside(tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/job\n"})
    second_version(tmp_path, "job", most=60, used=50, cache=20)
    assert free_memory(root=tmp_path) == 30


def test_the_narrowest_of_all_groups_above_decides(tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/outer/inner\n"})
    second_version(tmp_path, "outer/inner", most="max", used=5)
    second_version(tmp_path, "outer", most=50, used=20)
    assert free_memory(root=tmp_path) == 30


def test_a_full_group_leaves_nothing(tmp_path):
    write(tmp_path, **{"proc/self/cgroup": "0::/\n"})
    second_version(tmp_path, "", most=50, used=60)
    assert free_memory(root=tmp_path) == 0


def test_groups_of_the_first_version_whose_path_is_the_hosts(tmp_path):
    # Inside a container the path is that of the host, and only the mounted folder itself is there.
    write(tmp_path, **{
        "proc/self/cgroup": "5:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": "80", "sys/fs/cgroup/memory/memory.usage_in_bytes": "60",
        "sys/fs/cgroup/memory/memory.stat": "cache 30\ntotal_inactive_file 10\n",
    })  # fmt: skip
    assert free_memory(root=tmp_path) == 30


def test_processes_of_a_launch_share_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory(root=tmp_path) == 25
