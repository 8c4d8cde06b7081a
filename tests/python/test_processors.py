"""How many threads there are at first: affinity, OpenMP's places, and the quotas of control groups."""

import os
import subprocess
import sys

import pytest
from normkit import _ext

V1 = "cpu.cfs_quota_us"
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
older_containers = pytest.mark.report("field trial: the quota of older Docker and Kubernetes")


def mount(point, options, group="/", kind="cgroup"):
    return f"33 23 0:30 {group} {point} rw,nosuid shared:9 - {kind} {kind} {options}\n"


@pytest.fixture
def system(tmp_path):
    """Makes a root: /proc/self/cgroup, /proc/self/mountinfo and folders with quotas; returns what is read."""

    def quota(cgroup, mountinfo, **folders):
        if cgroup is not None:
            (tmp_path / "proc/self").mkdir(parents=True, exist_ok=True)
            (tmp_path / "proc/self/cgroup").write_text(cgroup)
            (tmp_path / "proc/self/mountinfo").write_text(
                "31 23 0:28 / / rw,relatime - tmpfs tmpfs rw,mode=755\n" + mountinfo
            )
        for folder, text in folders.items():
            path = tmp_path / folder.lstrip("/")
            path.mkdir(parents=True, exist_ok=True)
            if " " in text:  # version 2: "quota period"
                (path / "cpu.max").write_text(text + "\n")
            else:
                (path / V1).write_text(text + "\n")
                (path / "cpu.cfs_period_us").write_text("100000\n")
        return _ext._processor_quota(str(tmp_path))

    return quota


CPU = "/sys/fs/cgroup/cpu,cpuacct"
V1_MOUNTS = mount("/sys/fs/cgroup/memory", "rw,memory") + mount(CPU, "rw,cpu,cpuacct")


@linux_only
@older_containers
@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"/docker/abc": "250000"}, 3),
        ({"/docker/abc": "100000"}, 1),
        ({"/docker/abc": "1000"}, 1),
        ({"/docker/abc": "-1"}, 0),
        ({"/docker/abc": "0"}, 0),
        ({"/docker/abc": "nonsense"}, 0),
        ({"/docker/abc": "9" * 18}, 2**31 - 1),
        ({"/docker/abc": "-1", "/docker": "400000"}, 4),
        ({"/docker/abc": "500000", "/docker": "400000"}, 4),
        ({"/docker/abc": "500000", "/docker": "-1", "/": "700000"}, 5),
        ({"/docker/abc/child": "100000", "/docker/abcd": "100000", "/docker/abc": "600000"}, 6),
        ({}, 0),
    ],
)
def test_version_1(system, quotas, expected):
    folders = {CPU + group: text for group, text in quotas.items()}
    cgroup = "4:memory:/elsewhere\n3:cpuset:/elsewhere\n2:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n"
    assert system(cgroup, V1_MOUNTS, **folders) == expected


@linux_only
@older_containers
@pytest.mark.parametrize("cgroup", ["/docker/abc", "/", "/../outside", "/docker/abc/inner"])
def test_version_1_in_a_container(system, cgroup):
    """The container's own group lies at the mount point, whether /proc names it from outside or inside."""
    mounts = mount(CPU, "rw,cpu,cpuacct", group="/docker/abc")
    assert system(f"2:cpuacct,cpu:{cgroup}\n", mounts, **{CPU: "150000"}) == 2


@linux_only
@pytest.mark.parametrize(
    ("quotas", "expected"),
    [
        ({"/a/b c": "250000 100000"}, 3),
        ({"/a/b c": "max 100000"}, 0),
        ({"/a/b c": "max 100000", "/a": "50000 10000"}, 5),
        ({"/a/b c": "60000 10000", "/a": "50000 10000", "/": "40000 20000"}, 2),
        ({"/a/b": "10000 10000"}, 0),
        ({}, 0),
    ],
)
@pytest.mark.parametrize("point", ["/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/odd place"])
def test_version_2(system, quotas, expected, point):
    mounts = mount(point.replace(" ", r"\040"), "rw,nsdelegate", kind="cgroup2")
    folders = {point + group: text for group, text in quotas.items()}
    assert system("0::/a/b c\n", mounts, **folders) == expected


@linux_only
@older_containers
def test_both_versions_at_once(system):
    """The smaller one counts; version 1's other groups are not the processor's."""
    mounts = V1_MOUNTS + mount("/sys/fs/cgroup/unified", "rw", kind="cgroup2")
    cgroup = "5:cpuset,cpuacct2:/x\n4:cpu,cpuacct:/job\n0::/job\n"
    folders = {CPU + "/job": "300000", CPU + "/x": "100000", "/sys/fs/cgroup/unified/job": "max 100000"}
    assert system(cgroup, mounts, **folders) == 3
    assert system(cgroup, mounts, **{"/sys/fs/cgroup/unified/job": "200000 100000"}) == 2


@linux_only
@pytest.mark.parametrize("folders", [{"/sys/fs/cgroup": "300000 100000"}, {"/sys/fs/cgroup/cpu": "300000"}])
def test_without_proc(system, folders):
    assert system(None, "", **folders) == 3


@linux_only
@pytest.mark.parametrize(
    "text", ["", "\n", ":", "::", "2:cpu", "2:cpu:\n0::\n", "2:cpu:/" + "a" * 5000, "\0", "2:cpu:/%s%n\n"]
)
def test_broken_files(system, text):
    mounts = V1_MOUNTS + "- - -\n - cgroup\n1 2 - cgroup cgroup rw,cpu\n" + "x" * 9000 + "\n" + text
    assert system(text, mounts) == 0
    assert system(text, mounts.rstrip("\n")) == 0


def ask(environment, before="", after=""):
    names = ("NORMKIT_NUM_THREADS", "OMP_NUM_THREADS", "OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY")
    clean = {key: value for key, value in os.environ.items() if key not in names}
    code = f"import os\n{before}\nimport normkit\n{after}\nprint(normkit.get_num_threads())"
    result = subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    return int(result.stdout)


INFO = "from normkit import _info; assert 'set_num_threads' not in _info.collect()['threads_reason']"


@linux_only
@pytest.mark.report("field trial: OMP_PROC_BIND left one thread")
@pytest.mark.parametrize("bind", ["true", "close", "spread", "false"])
def test_bound_threads_are_counted(bind):
    """OpenMP binds the first thread when it is loaded; that thread's mask is not the process's."""
    free = ask({}, after=INFO)
    assert free == min(len(os.sched_getaffinity(0)), _ext._processor_quota() or 2**31)
    assert ask({"OMP_PROC_BIND": bind}, after=INFO) == free


@linux_only
def test_affinity_and_places_are_kept():
    allowed = sorted(os.sched_getaffinity(0))
    one = f"os.sched_setaffinity(0, [{allowed[0]}])"
    assert ask({}, before=one, after=INFO) == 1
    assert ask({"OMP_PROC_BIND": "true"}, before=one) == 1
    place = f"{{{allowed[0]}}}"
    for environment in (
        {"OMP_PLACES": place, "OMP_PROC_BIND": "true"},
        {"OMP_PLACES": f"{place},{place}", "OMP_PROC_BIND": "true"},
        {"GOMP_CPU_AFFINITY": str(allowed[0])},
    ):
        assert ask(environment) == 1, environment
    assert ask({"OMP_PROC_BIND": "true", "NORMKIT_NUM_THREADS": "3"}) == 3
    assert ask({"OMP_PROC_BIND": "true", "OMP_NUM_THREADS": "2"}) == 2
