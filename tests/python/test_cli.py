"""The normkit command: exit codes, and that what it prints follows from what it found."""

import argparse
import json
import os
import re
import subprocess
import sys

import normkit
import numpy as np
import pytest
from normkit import _info, _selftest, cli
from normkit.demo import claims, network, report, training


def run(*arguments):
    return cli.main(list(arguments))


# ---- the command itself ----


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["info", "--nonsense"],
        ["demo", "--epochs", "0"],
        ["demo", "--samples", "99"],
        ["demo", "--out", "missing/a.png"],
        ["selftest", "--seed", "-1"],
    ],
)
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
    assert facts["output_pool"]["mib"] == normkit.get_output_pool()
    assert facts["cuda"] == normkit.show_config(mode="dicts")["cuda"]
    assert len(facts["cuda_devices"]) == normkit.cuda.device_count()
    assert facts["stream_bytes"] >= 2**20


def test_info_says_why(capsys, monkeypatch):
    monkeypatch.setenv("NORMKIT_NUM_THREADS", "2")
    with normkit.num_threads(2):
        assert run("info") == 0
    assert "2 (NORMKIT_NUM_THREADS=2)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("own", "openmp", "quota", "threads", "reason"),
    [
        ("2", "3", 0, 2, "NORMKIT_NUM_THREADS=2"),
        ("", "3", 0, 3, "OMP_NUM_THREADS=3"),
        (None, "x", 0, 6, "6 usable processors; NORMKIT_NUM_THREADS overrides it"),
        (None, "", 3, 3, "6 usable processors, and a quota of 3 for the control group"),
        (None, None, 9, 6, "6 usable processors; "),
        (None, None, 0, 6, "6 usable processors; "),
        (None, None, 0, 5, "set_num_threads was called"),
        ("2", None, 0, 5, "set_num_threads was called"),
    ],
)
def test_info_tells_where_the_threads_come_from(own, openmp, quota, threads, reason, monkeypatch):
    for variable, text in (("NORMKIT_NUM_THREADS", own), ("OMP_NUM_THREADS", openmp)):
        if text is None:
            monkeypatch.delenv(variable, raising=False)
        else:
            monkeypatch.setenv(variable, text)
    monkeypatch.setattr(_info._ext, "_processor_quota", lambda: quota)
    monkeypatch.setattr(_info, "usable_processors", lambda: 6)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    with normkit.num_threads(threads):
        assert _info.collect()["threads_reason"].startswith(reason)


@pytest.mark.parametrize("environment", [{"NORMKIT_NUM_THREADS": "1"}, {"OMP_NUM_THREADS": "2"}, {}])
def test_info_and_the_library_agree_on_threads(environment):
    kept = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    command = [sys.executable, "-m", "normkit", "info", "--json"]
    result = subprocess.run(command, env=kept | environment, capture_output=True, text=True, timeout=60)
    facts = json.loads(result.stdout)
    for name, value in environment.items():
        assert facts["threads_reason"] == f"{name}={value}"
    assert "set_num_threads" not in facts["threads_reason"]


@pytest.mark.parametrize(
    ("text", "mode"),
    [("always [madvise] never\n", "madvise"), ("always madvise [never]\n", "never"), (None, "unknown")],
)
def test_info_on_huge_pages(text, mode, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "kernel/mm/transparent_hugepage"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "enabled").write_text(text)
    monkeypatch.setattr(_info, "SYSTEM", tmp_path)
    assert run("info") == 0
    line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("  pages"))
    assert line.startswith(f"  pages     {mode} (")
    assert ("switched off" in line) == (mode == "never")


def test_info_on_the_output_pool(monkeypatch, capsys):
    if sys.platform != "linux":
        pytest.skip("there is no pool elsewhere")
    before = normkit.get_output_pool()
    try:
        monkeypatch.setenv("NORMKIT_OUTPUT_POOL", "48")
        for mib, words in (
            (48, "NORMKIT_OUTPUT_POOL=48"),
            (0, "off"),
            (7, "NORMKIT_OUTPUT_POOL overrides it"),
        ):
            normkit.set_output_pool(mib)
            assert run("info") == 0
            line = next(s for s in capsys.readouterr().out.splitlines() if s.startswith("  pool"))
            assert f"  pool      {mib} MiB (" in line
            assert words in line
    finally:
        normkit.set_output_pool(before)


# ---- demo ----


SHORT = ["demo", "--quick", "--samples", str(training.MIN_SAMPLES)]


def test_demo_prints_the_same_digits_twice(tmp_path, capsys):
    for package in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(package)
    texts, pictures = [], []
    for picture in (tmp_path / "a.png", tmp_path / "b.png"):
        assert run(*SHORT, "--seed", "7", "--out", str(picture)) == 0
        pictures.append(picture.read_bytes())
        text = capsys.readouterr().out.replace(str(picture), "")
        assert max(map(len, text.splitlines())) <= 100
        texts.append(re.sub(r"^Training took .*$", "", text, flags=re.MULTILINE))
    for method in training.METHODS:
        assert re.search(rf"^{method.name} +\|", texts[0], re.MULTILINE)
    assert texts[0] == texts[1]
    assert pictures[0].startswith(b"\x89PNG")
    assert pictures[0] == pictures[1]


def test_demo_without_a_place_for_the_picture(tmp_path, capsys, monkeypatch):
    for package in ("sklearn", "matplotlib", "tqdm"):
        pytest.importorskip(package)
    monkeypatch.setattr(training, "train_all", lambda settings, digits: demo_results())
    assert run(*SHORT, "--out", str(tmp_path / "a.nonsense")) == 1
    assert "cannot write the picture" in capsys.readouterr().err


def test_demo_names_what_is_not_installed(capsys, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("demo") == 1
    error = capsys.readouterr().err
    assert "scikit-learn, tqdm, matplotlib" in error
    assert 'pip install "normkit[demo]"' in error


@pytest.mark.parametrize("batch", [training.BATCHES[0], training.BATCHES[-1]])
@pytest.mark.parametrize("method", training.METHODS, ids=lambda method: method.name)
def test_demo_network_learns_at_the_gentle_rate(method, batch):
    pytest.importorskip("sklearn")
    settings = training.Settings(seed=1, samples=3200, folds=1)
    with training.one_thread():
        result = training.train(method, batch, "gentle", settings, 0, training.load_digits())
    assert result.losses[0] > 0.5
    assert result.losses[-1] < 0.5
    assert result.accuracy > 0.85
    assert (result.norm_seconds > 0) == (method.name != "none")


@pytest.mark.parametrize("method", training.METHODS, ids=lambda method: method.name)
def test_demo_network_descends_its_own_gradient(method):
    """A tiny step lowers the loss by rate * |gradient|^2, which the step itself tells: |change|^2 / rate."""
    rng = np.random.default_rng(3)
    net = network.Network(8, 10, method, rng)
    x = np.abs(rng.standard_normal((8, 1, 8, 8), dtype=np.float32))
    labels = rng.integers(0, 10, 8)
    net.forward(x)  # weight norm makes its weight here
    before = [value.copy() for value in demo_parameters(net)]
    rate = 2.0**-9
    loss = net.train_step(x, labels, rate)
    change = sum(
        float(np.square(new.astype(np.float64) - old).sum())
        for new, old in zip(demo_parameters(net), before, strict=True)
    )
    lower, _ = network.cross_entropy(net.forward(x), labels)
    assert loss - lower == pytest.approx(change / rate, rel=0.15)


def demo_parameters(net):
    for layer in net._layers:
        if isinstance(layer, network.Module):
            values = (getattr(layer.module, name) for name in layer.module._parameters)
            yield from (value for value in values if value is not None)
        elif not isinstance(layer, network.ReLU):
            norm = getattr(layer, "weight_norm", None)
            yield from (norm.module.weight_g, norm.module.weight_v) if norm else (layer.weight,)
            yield layer.bias


@pytest.mark.parametrize(("size", "stride"), [(8, 1), (8, 2), (4, 1)])
def test_demo_convolution_against_its_definition(size, stride):
    rng = np.random.default_rng(0)
    layer = network.Convolution(3, 5, size, stride, network.Method("none"), rng, first=False)
    x = rng.standard_normal((2, 3, size, size), dtype=np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = layer.weight.reshape(5, 3, 3, 3)
    out = -(-size // stride)
    dy = rng.standard_normal((2, 5, out, out), dtype=np.float32)
    y, dx, dweight = np.zeros_like(dy), np.zeros_like(padded), np.zeros_like(weight)
    for i, j in np.ndindex(out, out):
        at = (slice(None), slice(None), slice(i * stride, i * stride + 3), slice(j * stride, j * stride + 3))
        y[:, :, i, j] = np.einsum("ncij,ocij->no", padded[at], weight)
        dx[at] += np.einsum("no,ocij->ncij", dy[:, :, i, j], weight)
        dweight += np.einsum("no,ncij->ocij", dy[:, :, i, j], padded[at])
    np.testing.assert_allclose(layer.forward(x), y, atol=1e-5)
    np.testing.assert_allclose(layer.backward(dy), dx[:, :, 1:-1, 1:-1], atol=1e-5)
    np.testing.assert_allclose(layer._dweight, dweight.reshape(5, -1), atol=1e-4)


def demo_results(runs=3, **changed):
    """All cells at 95 %, but for changed ones: batch_2_gentle=(0.8, 0.9, None) or batch_32_gentle_dim=..."""
    losses = np.geomspace(2, 0.1, training.LOSS_POINTS)
    results = []
    for rate in training.RATES:
        for batch in training.BATCHES:
            for method in training.METHODS:
                name = f"{method.name}_{batch}_{rate}"
                shares = changed.get(name, (0.95,) * runs)
                dim = changed.get(f"{name}_dim", (0.95,) * runs)
                several = [
                    training.Run(losses, share, share_dim, 1.0, 0.2)
                    if share is not None
                    else training.Run(np.full_like(losses, np.inf), 0.1, 0.1, 1.0, 0.2)
                    for share, share_dim in zip(shares, dim, strict=True)
                ]
                results.append(training.Result(method.name, batch, rate, several))
    return results


def demo_words(results, held_out=1797):
    """What the verdict says of each claim, by the first three words of its sentence."""
    words = {}
    for line in report.verdict(results, held_out).splitlines():
        if line.endswith(")") and ": " in line and "arXiv" in line:
            word, sentence = line.split(": ", 1)
            words[" ".join(sentence.split()[:3])] = word
    assert len(words) == len(claims.CLAIMS)
    return words


def test_demo_verdict_when_nothing_makes_a_difference():
    words = demo_words(demo_results())
    confirmed = {"Group norm does", "Switchable norm does", "RMS norm does", "Dynamic tanh does"}
    assert {claim for claim, word in words.items() if word == "Confirmed"} == confirmed
    assert words["Batch norm suffers"] == "Not confirmed here"


@pytest.mark.parametrize(
    ("claim", "changed", "before", "after"),
    [
        (
            "Without normalization, the",
            {f"none_{batch}_tenfold": (None,) * 3 for batch in training.BATCHES},
            "Not confirmed here",
            "Confirmed",
        ),
        (
            "Without normalization, the",
            {"none_32_tenfold": (0.5,) * 3},
            "Not confirmed here",
            "Confirmed in part",
        ),
        (
            "Without normalization, the",
            {"none_32_tenfold": (0.95, 0.9, None)},
            "Not confirmed here",
            "Undecided here",
        ),
        ("Group norm does", {"group_2_gentle": (0.9,) * 3}, "Confirmed", "Not confirmed here"),
        ("Group norm does", {"group_2_gentle": (0.97,) * 3}, "Confirmed", "Not confirmed here"),
        ("Group norm does", {"group_2_gentle": (0.955,) * 3}, "Confirmed", "Confirmed"),
        ("Group norm does", {"group_2_gentle": (0.95, 0.8, None)}, "Confirmed", "Undecided here"),
        ("Switchable norm does", {"switchable_32_gentle": (0.9,) * 3}, "Confirmed", "Not confirmed here"),
        ("Instance norm discards", {"batch_32_gentle_dim": (0.4,) * 3}, "Confirmed in part", "Confirmed"),
        (
            "Instance norm discards",
            {"instance_32_gentle_dim": (0.4,) * 3},
            "Confirmed in part",
            "Not confirmed here",
        ),
        ("RMS norm does", {"RMS_32_tenfold": (0.4,) * 3}, "Confirmed", "Confirmed in part"),
        ("Weight norm bears", {"none_32_tenfold": (None,) * 3}, "Not confirmed here", "Confirmed"),
        (
            "Dynamic tanh does",
            {f"layer_{b}_gentle": (0.99,) * 3 for b in (2, 8, 32)},
            "Confirmed",
            "Not confirmed here",
        ),
    ],
)
def test_demo_verdict_follows_the_numbers(claim, changed, before, after):
    assert demo_words(demo_results())[claim] == before
    assert demo_words(demo_results(**changed))[claim] == after


def test_demo_verdict_on_batch_norm_flips():
    small = demo_results(batch_2_gentle=(0.9,) * 3)
    assert "\nConfirmed: Batch norm suffers in tiny batches" in report.verdict(small, 1797)
    assert "\nConfirmed: Batch norm suffers in tiny batches" not in report.verdict(small, 30)
    larger = demo_results(none_32_tenfold=(0.2,) * 3)
    assert "\nConfirmed: Batch norm allows larger rates" in report.verdict(larger, 1797)


def test_demo_table_marks_the_best_and_the_diverged():
    results = demo_results(
        none_32_tenfold=(None,) * 3,
        weight_2_tenfold=(0.95, None, 0.95),
        group_8_gentle=(0.971, 0.972, 0.973),
    )
    table = report.table(results, 1797)
    rows = {line.split("|")[0].strip(): line.split("|")[1:] for line in table.splitlines() if "|" in line}
    assert rows["none"][1].split() == ["95.0%*", "95.0%*", "diverged"]
    assert rows["weight"][1].split() == ["66.7%", "(1)", "95.0%*", "95.0%*"]
    assert rows["group"][0].split() == ["95.0%*", "97.2%*", "95.0%*"]
    assert rows["batch"][0].split() == ["95.0%*", "95.0%", "95.0%*"]
    assert "(k): k of 3 runs diverged" in table
    assert "diverged" not in report.table(demo_results(runs=1), 599)


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
