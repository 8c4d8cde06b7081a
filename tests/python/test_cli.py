"""The normkit command: exit codes, and that what it prints follows from what it found."""

import argparse
import json
import math
import re

import normkit
import numpy as np
import pytest
from normkit import _info, _selftest, cli
from normkit.bench import cases, measure, peers
from normkit.bench import report as bench_report
from normkit.demo import report, training


def run(*arguments):
    return cli.main(list(arguments))


# ---- the command itself ----


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "--nonsense"], ["demo", "--epochs", "0"]])
def test_wrong_usage_is_exit_code_2(arguments, capsys):
    assert run(*arguments) == 2
    assert "usage: normkit" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["demo", "bench", "info", "selftest"])
def test_help(command, capsys):
    assert run(command, "--help") == 0
    assert f"usage: normkit {command}" in capsys.readouterr().out


def test_version(capsys):
    assert run("--version") == 0
    assert capsys.readouterr().out.strip() == f"normkit {normkit.__version__}"


# ---- info ----


def test_info_as_json(capsys):
    with normkit.num_threads(3):
        assert run("info", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["version"] == normkit.__version__
    assert facts["isa"] == normkit.isa()
    assert facts["isa"] in facts["isa_available"]
    assert facts["threads"] == 3
    assert facts["packages"]["numpy"] == np.__version__


def test_info_says_why(capsys, monkeypatch):
    monkeypatch.setenv("NORMKIT_NUM_THREADS", "2")
    assert run("info") == 0
    assert "NORMKIT_NUM_THREADS=2" in capsys.readouterr().out


# ---- demo ----


def test_demo_prints_the_same_digits_twice(tmp_path, capsys):
    for package in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(package)
    texts = []
    for picture in (tmp_path / "a.png", tmp_path / "b.png"):
        assert run("demo", "--quick", "--epochs", "1", "--seed", "7", "--out", str(picture)) == 0
        assert picture.read_bytes().startswith(b"\x89PNG")
        text = capsys.readouterr().out.replace(str(picture), "")
        texts.append(re.sub(r" +(\d+%|-)$", "", text, flags=re.MULTILINE))  # the measured column
    assert "LayerNorm" in texts[0]
    assert texts[0] == texts[1]


def test_demo_without_a_place_for_the_picture(tmp_path, capsys):
    for package in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(package)
    assert run("demo", "--quick", "--epochs", "1", "--out", str(tmp_path / "missing" / "a.png")) == 1
    assert "cannot write the picture" in capsys.readouterr().err


def test_demo_names_what_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("demo") == 1
    error = capsys.readouterr().err
    assert "scikit-learn, tqdm, matplotlib" in error
    assert 'pip install "normkit[demo]"' in error


@pytest.mark.parametrize("method", training.METHODS, ids=lambda method: method.name)
def test_demo_network_learns_at_the_gentle_rate(method):
    pytest.importorskip("sklearn")
    settings = training.Settings(seed=1, epochs=6, repeats=1)
    with training.one_thread():
        result = training.train(method, training.RATES["gentle"], settings, 0, training.load_digits())
    assert result.losses[0] > 2
    assert result.losses[-1] < 0.3
    assert result.accuracy > 0.85
    assert (result.norm_seconds > 0) == (method.name != "no norm")


def demo_results(accuracies, final_losses):
    results = []
    for (name, rate), column in zip(
        training.RATES.items(), zip(accuracies, final_losses, strict=True), strict=True
    ):
        for method, runs, loss in zip(("no norm", "LayerNorm"), *column, strict=True):
            losses = np.linspace(2.5, loss, training.LOSS_POINTS + 1) if math.isfinite(loss) else None
            losses = np.full(training.LOSS_POINTS + 1, np.inf) if losses is None else losses
            results.append(
                training.Result(method, name, rate, [training.Run(losses, a, 1.0, 0.2) for a in runs])
            )
    return results


def test_demo_verdict_follows_the_numbers():
    results = demo_results(
        [[(0.95, 0.97), (0.91, 0.85)], [(0.1, 0.2), (0.99, 0.98)]], [[0.5, 0.25], [math.inf, 1]]
    )
    gentle, tenfold = report.verdict(results).split("\nAt rate ")[1:]
    assert "trained in all 2 runs: no norm; trained in 1 of 2 runs: LayerNorm" in gentle
    assert "Lowest final loss: LayerNorm, 0.25" in gentle
    assert "trained in all 2 runs: LayerNorm; trained in none: no norm" in tenfold
    assert "diverged" in report.table(results)

    results = demo_results([[(0.1,), (0.1,)], [(0.95,), (0.1,)]], [[math.inf, math.inf], [0.5, 0.25]])
    gentle, tenfold = report.verdict(results).split("\nAt rate ")[1:]
    assert gentle.endswith(", not trained: no norm, LayerNorm.")
    assert ", trained: no norm; not trained: LayerNorm" in tenfold


# ---- selftest ----


def test_selftest_passes(capsys):
    assert run("selftest") == 0
    assert re.search(r"^\d{4} passed, 0 failed$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.parametrize("name", ["layer_norm", "rms_norm", "layer_norm_backward", "rms_norm_backward"])
def test_selftest_sees_a_wrong_last_element(name, monkeypatch, capsys):
    right = getattr(normkit, name)

    def wrong(*arguments, **options):
        result = right(*arguments, **options)
        first = result[0] if isinstance(result, tuple) else result
        first[..., -1] *= np.float32(1 + 2.0**-19)
        return result

    monkeypatch.setattr(normkit, name, wrong)
    tally = _selftest.Tally()
    _selftest._check_accuracy(tally, np.dtype(np.float32), 0)
    assert tally.failed > 10
    assert name.removesuffix("_backward") in capsys.readouterr().out


def test_selftest_sees_a_difference_between_thread_counts(monkeypatch, capsys):
    right = normkit.layer_norm_backward

    def wrong(*arguments, **options):
        dx, dweight, dbias = right(*arguments, **options)
        if normkit.get_num_threads() == 3:
            dweight[0] = np.nextafter(dweight[0], dweight.dtype.type(np.inf))
        return dx, dweight, dbias

    monkeypatch.setattr(normkit, "layer_norm_backward", wrong)
    tally = _selftest.Tally()
    _selftest._check_threads(tally)
    assert "FAILED  same bits on 3 threads" in capsys.readouterr().out


def test_selftest_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(_selftest, "SIZES", [7])
    monkeypatch.setattr(_selftest, "PUBLISHED_DIGEST", "another")
    assert _selftest.run(argparse.Namespace(digest=False, seed=0)) == 1
    assert "FAILED  same bits as published" in capsys.readouterr().out


# ---- bench ----


@pytest.mark.parametrize("memory", cases.MEMORY)
@pytest.mark.parametrize("which", cases.PASSES)
@pytest.mark.parametrize("operation", cases.OPERATIONS)
@pytest.mark.parametrize("name", list(peers.PEERS))
def test_bench_contenders_agree_with_float64(name, operation, which, memory):
    try:
        peer = peers.PEERS[name]()
    except ImportError:
        pytest.skip("not installed")
    threads = _info.usable_processors() if name == "jax" else 1
    case = cases.Case(operation, which, "float32", 13, 70, threads, memory)
    arrays = cases.make_arrays(case)
    before = [array.tobytes() for array in arrays if array is not None]
    try:
        call = peer.prepare(case, arrays)
    except peers.Unavailable as reason:
        pytest.skip(str(reason))
    exact = cases.expected(case, arrays)
    for _ in range(2):
        assert cases.error(peer.results(call()), exact) < 1e-5
    assert before == [array.tobytes() for array in arrays if array is not None]


def test_bench_names_who_is_wrong():
    class Wrong(peers.Numpy):
        name = "wrong"

        def results(self, value):
            return (value[0] + np.float32(0.01),)

    case = cases.Case("layer_norm", "forward", "float32", 5, 33, 1, "reused")
    group = measure.measure(case, [peers.Normkit(), Wrong()], 2)
    assert set(group.wrong) == {"wrong"}
    table = bench_report.table([group], [peers.Normkit(), Wrong()])
    assert "! wrong differs from float64" in table


@pytest.mark.parametrize(
    ("after", "others", "mark"), [(1.05, 0.01, ""), (1.2, 0.01, "void"), (1.0, 0.5, "busy")]
)
def test_bench_marks_an_unsteady_machine(after, others, mark):
    case = cases.Case("rms_norm", "backward", "float32", 5, 33, 1, "reused")
    timings = {"normkit": measure.Timing(2.0, 1.9, 2.1), "memcpy": measure.Timing(1.0, 0.9, 1.1)}
    group = measure.Group(case, timings, {}, {}, 1.0, after, others)
    line = bench_report.table([group], []).splitlines()[-1]
    assert line.rstrip().endswith(mark or "|")


def test_bench_as_json(capsys):
    arguments = ["--op", "rms_norm", "--passes", "forward", "--dtype", "float32", "--shape", "3x40"]
    assert (
        run("bench", *arguments, "--threads", "1", "--peers", "numpy", "--memory", "natural", "--json") == 0
    )
    data = json.loads(capsys.readouterr().out)
    (group,) = data["groups"]
    assert group["bytes"] == 4 * 40 * (2 * 3 + 1)
    assert set(group["timings"]) == {"normkit", "numpy", "memcpy"}
    assert group["wrong"] == {}
