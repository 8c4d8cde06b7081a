"""normkit bench: contenders agree with float64, tables follow from the measurements, options work."""

import importlib.util
import json
import math
import re

import normkit
import numpy as np
import pytest
from normkit import _info, cli
from normkit.bench import cases, goals, measure, memory, operations, peers, plot, report

IMAGE = (3, 64, 5, 7)  # 64 channels: GroupNorm has 32 groups
pytestmark = pytest.mark.alone
SMALL = ["--threads", "1", "--samples", "1"]


def run(*arguments):
    return cli.main(["bench", *arguments])


@pytest.fixture
def short(monkeypatch):
    """Measurements that take no time, and say nothing."""
    monkeypatch.setattr(measure, "SAMPLE_SECONDS", 1e-5)
    monkeypatch.setattr(measure, "MEMCPY_SAMPLES", 2)


def load(name):
    """The peer, or a skip where its package is not installed; an installed one has to load."""
    package = {"onednn": "onednn", "torch": "torch", "onnxrt": "onnxruntime", "jax": "jax"}.get(name)
    try:
        return peers.PEERS[name]()
    except ImportError as error:
        if package is None or importlib.util.find_spec(package) is not None:
            raise
        pytest.skip(str(error))


def case_of(operation, which="forward", shape=None, **options):
    default = (13, 70) if operations.OPERATIONS[operation].rank == 2 else IMAGE
    return cases.Case(operation, which, "float32", shape or default, **options)


def group_of(case, memcpy_after=1.0, others=0.0, **timings):
    medians = {"normkit": 2.0, "memcpy": 1.0} | timings
    spread = {name: measure.Timing(value, 0.9 * value, 1.1 * value) for name, value in medians.items()}
    errors = dict.fromkeys(timings, 1e-6) | {"normkit": 1e-7}
    return measure.Group(case, spread, errors, {}, 1.0, memcpy_after, others)


# ---- contenders ----


def all_cases():
    for operation, geometry in operations.OPERATIONS.items():
        for which in cases.PASSES[:1] if geometry.forward_only else cases.PASSES:
            for layout in cases.LAYOUTS if geometry.rank == 4 else ["nchw"]:
                for kind in cases.MEMORY:
                    yield case_of(operation, which, layout=layout, memory=kind)


@pytest.mark.parametrize("name", list(peers.PEERS))
def test_contenders_agree_with_float64(name):
    peer, ran = load(name), 0
    for case in all_cases():
        case = case._replace(threads=2 if name == "serial" else 1)
        if name == "jax":
            case = case._replace(threads=_info.usable_processors())
        arrays = cases.make_arrays(case)
        before = [array.tobytes() for array in arrays if array is not None]
        try:
            call = peer.prepare(case, arrays)
        except peers.Unavailable:
            continue
        for _ in range(2):
            computed = {name: peer.results(call())}
            assert operations.worst_errors(case.geometry, case.which, arrays, computed)[name] < 1e-5, case
        assert before == [array.tobytes() for array in arrays if array is not None]
        ran += 1
    assert ran >= 2


@pytest.mark.parametrize("dtype", cases.DTYPES)
@pytest.mark.parametrize("line", goals.GOALS, ids=lambda line: f"{line.goal}-{line.operation}-{line.which}")
def test_every_goal_runs_in_every_type(line, dtype):
    """On a smaller shape."""
    if line.arrays == "torch" and importlib.util.find_spec("torch") is None:
        pytest.skip("PyTorch is not installed")
    small = case_of(line.operation, line.which, memory=line.memory, call=line.call, arrays=line.arrays)
    case = small._replace(dtype=dtype)
    arrays = cases.make_arrays(case)
    call = peers.Normkit().prepare(case, arrays)
    computed = {"normkit": peers.Normkit().results(as_numpy(call()))}
    errors = operations.worst_errors(case.geometry, case.which, arrays, computed)
    assert errors["normkit"] < cases.TOLERANCE[dtype]


def as_numpy(value):
    """PyTorch's bfloat16 does not convert to NumPy by itself."""
    values = value if isinstance(value, tuple) else (value,)
    return tuple(v if isinstance(v, np.ndarray) or v is None else np.asarray(v.double()) for v in values)


def test_reference_in_parts_is_the_reference(monkeypatch):
    monkeypatch.setattr(operations, "PART", 200)
    case = case_of("layer_norm")
    arrays = cases.make_arrays(case)
    y = normkit.layer_norm(arrays.x, 70, arrays.weight, arrays.bias)
    for row in (0, 12):
        wrong = y.copy()
        wrong[row, 3] += 0.5
        computed = {"right": (y,), "wrong": (wrong,)}
        errors = operations.worst_errors(case.geometry, "forward", arrays, computed)
        assert errors["right"] < 1e-6
        assert errors["wrong"] > 0.05


def table(groups, columns):
    printed = report.Table("title", [group.case for group in groups], columns)
    return [*printed.head.splitlines(), *map(printed.line, groups), *printed.foot(groups)]


def test_who_is_wrong_is_named(short):
    class Wrong(peers.Numpy):
        name = "numpy"

        def results(self, value):
            return (value[0] + np.float32(0.01),)

    group = measure.measure(case_of("layer_norm"), [peers.Normkit(), Wrong()], 2)
    assert group.wrong == ["numpy"]
    assert "! numpy differs from float64" in table([group], ["numpy"])[-1]


def test_a_peer_that_fails_stays_out(short):
    class Broken(peers.Numpy):
        name = "numpy"

        def prepare(self, case, arrays):
            raise RuntimeError("broken today")

    group = measure.measure(case_of("rms_norm"), [peers.Normkit(), Broken()], 2)
    assert group.absent == {"numpy": "failed: broken today"}
    assert set(group.timings) == {"normkit", "memcpy"}


def test_a_missing_driver_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("normkit.bench.peers.onednn.LIBRARY", "none.so")
    assert [peer.name for peer in measure.load_peers(["onednn"])] == ["normkit"]
    assert "build_onednn.py" in capsys.readouterr().err
    library = tmp_path / "none.so"
    library.write_text("no library")
    monkeypatch.setenv("NORMKIT_BENCH_ONEDNN", str(library))
    assert [peer.name for peer in measure.load_peers(["onednn"])] == ["normkit"]


# ---- cases ----


def test_bytes():
    assert case_of("layer_norm", shape=(3, 40)).bytes == 4 * 40 * (2 * 3 + 2)
    assert case_of("rms_norm", shape=(3, 40)).bytes == 4 * 40 * (2 * 3 + 1)
    assert case_of("layer_norm", "backward", (3, 40)).bytes == 4 * 40 * (3 * 3 + 3)
    assert case_of("add_rms_norm", shape=(3, 40)).bytes == 4 * 40 * (4 * 3 + 1)
    assert case_of("add_rms_norm", shape=(3, 40)).output_bytes == 4 * 40 * 2 * 3
    assert case_of("batch_norm").bytes == 4 * (2 * math.prod(IMAGE) + 2 * 64)


def test_nhwc_arrays_are_strided_views():
    arrays = cases.make_arrays(case_of("batch_norm", layout="nhwc"))
    assert arrays.x.shape == IMAGE
    assert arrays.x.transpose(0, 2, 3, 1).flags.c_contiguous


def test_operands_keep_the_order_of_axes():
    array = np.zeros((2, 5, 7, 64), np.float32).transpose(0, 3, 1, 2)
    other = memory.copy_of(array + 1)
    assert other.strides == array.strides and other.shape == array.shape
    assert (other == 1).all()
    assert memory.empty((2**21,), np.uint8).ctypes.data % memory.HUGE_PAGE == 0


def test_the_heap_survives(short):
    before = [np.arange(100_000) for _ in range(20)]
    memory.gather_heap()
    assert all((array == np.arange(100_000)).all() for array in before)


def test_goals_on_one_processor_have_no_threads_to_compare():
    assert not [case for case in goals.goals([1]) if "serial" in case.peers]
    lines = {case.goal for case in goals.goals([1, 2])}
    assert lines == {str(number) for number in range(1, 23)}
    assert {case.threads for case in goals.goals([1, 2])} == {1, 2}


# ---- tables ----


@pytest.mark.parametrize(
    ("after", "others", "mark"), [(1.05, 0.01, ""), (1.2, 0.01, "void"), (1.0, 0.5, "busy")]
)
def test_an_unsteady_machine_is_marked(after, others, mark):
    group = group_of(case_of("rms_norm", "backward"), after, others)
    line = table([group], [])[-1]
    assert line.rstrip().endswith(mark or "|")


def test_where_normkit_is_behind():
    ahead, lost = group_of(case_of("rms_norm"), torch=2.2), group_of(case_of("layer_norm"), torch=1.9)
    allowed = group_of(case_of("layer_norm", limit=0.95), torch=1.94)
    assert [group.behind for group in (ahead, lost, allowed)] == [[], ["torch"], []]
    *_, first, second = table([ahead, lost], ["torch"])
    assert "1.10 1e-06" in first and "BEHIND" not in first
    assert "<0.95 1e-06" in second and second.endswith("BEHIND")
    summary = report.behind([ahead, lost])
    assert "behind in 1 of 2 groups" in summary and "layer_norm forward, float32, 13x70, 1 thread" in summary
    rows = [line for line in report.markdown([ahead, lost], ["torch"], []).splitlines() if "_norm" in line]
    assert "| 1.10 |" in rows[0] and "| **0.95** |" in rows[1]


def test_markdown_joins_the_thread_counts():
    case = case_of("layer_norm", goal="1")
    two = group_of(case._replace(threads=2), torch=3.0)
    text = report.markdown([group_of(case, torch=5.0), two], ["torch", "jax"], ["machine"])
    (row,) = [line for line in text.splitlines() if line.startswith("| 1 |")]
    assert row.endswith("| 2.50 / 1.50 | - |")
    assert text.startswith("machine")


# ---- the command ----


def test_as_json(capsys, short):
    arguments = ["--op", "rms_norm", "--passes", "forward", "--dtype", "float32", "--shape", "3x40"]
    assert run(*arguments, *SMALL, "--peers", "numpy", "--memory", "natural", "--json") == 0
    data = json.loads(capsys.readouterr().out)
    (group,) = data["groups"]
    assert group["bytes"] == 4 * 40 * (2 * 3 + 1)
    assert set(group["timings"]) == {"normkit", "numpy", "memcpy"}
    assert group["wrong"] == []
    assert group["errors"]["normkit"] < 1e-6
    assert data["header"]["versions"]["numpy"] == np.__version__


def test_goals_as_markdown(capsys, short):
    assert run("--suite", "goals", "--case", "layer_norm forward, float32, 1x768", *SMALL, "--markdown") == 0
    text = capsys.readouterr().out
    assert re.search(r"^\| 17 \| layer_norm forward, float32, 1x768 \|", text, re.MULTILINE)


def test_everything_from_one_run(tmp_path, capsys, short):
    data, page = tmp_path / "a.json", tmp_path / "a.md"
    arguments = ["--op", "rms_norm", "--dtype", "float32", "--shape", "3x40", *SMALL, "--peers", "numpy"]
    assert run(*arguments, "--json", str(data), "--markdown", str(page)) == 0
    assert len(json.loads(data.read_text())["groups"]) == 2
    assert "| rms_norm backward, float32, 3x40 |" in page.read_text()
    assert "groups are void" in capsys.readouterr().out


@pytest.mark.parametrize(("drifts", "kept"), [((0.5, 0.3, 0.2), 0.2), ((0.5, 0.05, 0.01), 0.05)])
def test_void_groups_are_measured_again(drifts, kept, monkeypatch, short, capsys):
    again = iter(drifts)
    monkeypatch.setattr(measure, "measure", lambda case, *_: group_of(case, 1 + next(again)))
    assert run(*["--quick", "--op", "rms_norm", "--peers", "numpy", "--retry", "2", "--json"], *SMALL) == 0
    (group,) = json.loads(capsys.readouterr().out)["groups"]
    assert group["memcpy_after"] == 1 + kept


def test_list_and_case(capsys):
    assert run("--suite", "goals", "--list", "--case", "group_norm", "--threads", "1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 7 and all(line[3:].startswith("group_norm forward") for line in lines)
    assert run("--suite", "goals", "--list", "--rows", "16", "--threads", "1") == 0
    assert capsys.readouterr().out.splitlines()[0].startswith("16 layer_norm_channels")
    assert run("--case", "nonsense") == 2
    assert "no such case" in capsys.readouterr().err


def test_threads_against_itself(capsys, short):
    case = case_of("layer_norm", threads=2, peers=("serial",))
    group = measure.measure(case, measure.load_peers(["serial", "numpy"]), 2)
    assert set(group.timings) == {"normkit", "serial", "memcpy"}


@pytest.mark.parametrize("shape", ["3", "3x4x5", "0x3", "axb"])
def test_wrong_shapes(shape, capsys):
    assert run("--shape", shape) == 2
    assert "--shape" in capsys.readouterr().err


def test_plot(tmp_path, capsys, short):
    pytest.importorskip("matplotlib")
    picture = tmp_path / "roofline.png"
    arguments = ["--dtype", "float32", "--shape", "3x40", "7x40", *SMALL, "--peers", "numpy"]
    assert run(*arguments, "--plot", str(picture)) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert run(*arguments, "--json", "/dev/full") == 1
    assert "cannot write what was measured" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        (
            ["--plot", "missing/a.png"],
            "argument --plot: 'missing/a.png' lies in a folder that does not exist",
        ),
        (["--json", "missing/a.json"], "argument --json: 'missing/a.json' lies in a folder"),
        (["--markdown", "."], "argument --markdown: '.' is a folder"),
        (["--plot", "a.nonsense"], "--plot is 'a.nonsense'; its ending should be one of"),
        (["--retry", "-1"], "argument --retry: -1 is below 0"),
        (["--samples", "0"], "argument --samples: 0 is below 1"),
        (["--threads", "0"], "argument --threads: 0 is below 1"),
        (["--threads", "1025"], "argument --threads: 1025 is above 1024"),
        (["--shape", "99999999999x99999999"], "99999999999x99999999, 1 thread: its arrays take"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_measured(
    wrong, reason, tmp_path, monkeypatch, capsys
):
    if "--plot" in wrong:
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("measured"))
    assert run("--op", "layer_norm", "--shape", "3x40", *SMALL, *wrong) == 2
    assert reason in capsys.readouterr().err


def test_a_case_without_memory_is_left_out(monkeypatch, capsys):
    def full(*_):
        raise MemoryError("2 TiB")

    monkeypatch.setattr(measure, "measure", full)
    assert run("--op", "layer_norm", "--shape", "3x40", *SMALL) == 1
    assert "skipped, not enough memory (2 TiB)" in capsys.readouterr().err


def test_plot_without_matplotlib(monkeypatch, capsys):
    def missing(path):
        raise plot.MissingMatplotlib("--plot needs matplotlib: pip install matplotlib")

    monkeypatch.setattr(plot, "check", missing)
    assert run("--quick", "--plot", "a.png") == 1
    assert "pip install matplotlib" in capsys.readouterr().err
