"""The operator tests of the ONNX standard: inputs and outputs that its own package generates or stores.

Its tolerance is 1e-3 relative and 1e-7 absolute; here it is 1e-5 and 1e-7, or the case's own where that is
smaller. (The expected values are float32 arithmetic themselves.)
"""

import warnings
from collections import Counter
from pathlib import Path

import checks
import normkit as nk
import numpy as np
import pytest
from reference.wide import WIDE, wide

pytest.importorskip("onnx", reason="onnx is not installed: none of its operator tests")
pytestmark = pytest.mark.compares

RELATIVE, ABSOLUTE = 1e-5, 1e-7


# One function per operator: (inputs, attributes) -> outputs. Defaults are those of the standard.


def batch_normalization(inputs, attributes):
    x, weight, bias, mean, var = inputs
    eps = attributes.get("epsilon", 1e-5)
    if not attributes.get("training_mode", 0):
        return (nk.batch_norm(x, mean, var, weight, bias, eps=eps),)
    kept = attributes.get("momentum", 0.9)  # of the old statistics; here momentum is the new ones' share
    running_mean, running_var = mean.copy(), var.copy()
    y = nk.batch_norm(x, running_mean, running_var, weight, bias, True, 1 - kept, eps)
    # Running variances follow the biased one there, as in PyTorch the unbiased one here.
    n = x.size // x.shape[1]
    biased = kept * var + (running_var - kept * var) * (n - 1) / n
    return y, running_mean, biased


def instance_normalization(inputs, attributes):
    x, weight, bias = inputs
    return (nk.instance_norm(x, weight=weight, bias=bias, eps=attributes.get("epsilon", 1e-5)),)


def group_normalization(inputs, attributes):
    x, weight, bias = inputs
    return (nk.group_norm(x, attributes["num_groups"], weight, bias, attributes.get("epsilon", 1e-5)),)


def normalized_shape(x, attributes):
    """From `axis` to the last one."""
    return x.shape[attributes.get("axis", -1) % x.ndim :]


def layer_normalization(inputs, attributes):
    """Y, Mean and InvStdDev."""
    x, *parameters = inputs
    eps = attributes.get("epsilon", 1e-5)
    return nk.layer_norm(x, normalized_shape(x, attributes), *parameters, eps=eps, return_stats=True)


def rms_normalization(inputs, attributes):
    x, weight = inputs
    return (nk.rms_norm(x, normalized_shape(x, attributes), weight, attributes.get("epsilon", 1e-5)),)


def lp_normalization(inputs, attributes):
    (x,) = inputs
    return (nk.normalize(x, attributes.get("p", 2), attributes.get("axis", -1)),)


def lrn(inputs, attributes):
    """A window of even size reaches one channel further up there, one further down here."""
    (x,) = inputs
    alpha, beta, k = (attributes.get(name, d) for name, d in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0)))
    return (nk.local_response_norm(x[:, ::-1], attributes["size"], alpha, beta, k)[:, ::-1],)


def mean_variance_normalization(inputs, attributes):
    (x,) = inputs
    return (nk.z_score(x, tuple(attributes.get("axes", (0, 2, 3)))),)


ADAPTERS = {
    "BatchNormalization": batch_normalization,
    "InstanceNormalization": instance_normalization,
    "GroupNormalization": group_normalization,
    "LayerNormalization": layer_normalization,
    "RMSNormalization": rms_normalization,
    "LpNormalization": lp_normalization,
    "LRN": lrn,
    "MeanVarianceNormalization": mean_variance_normalization,
}
# As many as onnx 1.23 has; a later one may have more.
AT_LEAST = {
    "BatchNormalization": 4,
    "InstanceNormalization": 2,
    "GroupNormalization": 2,
    "LayerNormalization": 19,
    "RMSNormalization": 19,
    "LpNormalization": 6,
    "LRN": 2,
    "MeanVarianceNormalization": 1,
}


@pytest.fixture(scope="module")
def generated():
    """The generated cases by operator. The `_expanded` ones are graphs of primitives and not of interest."""
    from onnx.backend.test.case.node import collect_testcases

    cases = {operator: [] for operator in ADAPTERS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the other operators' divisions by zero
        collected = collect_testcases(None)
    for case in collected:
        nodes = case.model.graph.node
        if len(nodes) == 1 and nodes[0].op_type in cases and "_expanded" not in case.name:
            cases[nodes[0].op_type].append(case)
    return cases


def attributes_of(node):
    import onnx

    return {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}


def check_outputs(name, outputs, expected, rtol, atol):
    assert len(outputs) == len(expected), f"{name}: {len(outputs)} outputs instead of {len(expected)}"
    for k, (actual, wanted) in enumerate(zip(outputs, expected, strict=True)):
        wanted = np.asarray(wanted)
        if k == 0:
            assert actual.dtype == wanted.dtype, f"{name}: {actual.dtype} instead of {wanted.dtype}"
        bound = min(rtol, RELATIVE) * np.abs(wide(wanted)) + WIDE(min(atol, ABSOLUTE))
        checks.assert_within(actual, wide(wanted), bound, f"{name}, output {k}")


@pytest.mark.parametrize("operator", ADAPTERS)
def test_generated_cases(generated, operator):
    cases = generated[operator]
    assert len(cases) >= AT_LEAST[operator], f"only {[case.name for case in cases]}"
    done = Counter()
    for case in cases:
        (node,) = case.model.graph.node
        for inputs, expected in case.data_sets:
            # Inputs that are left out at the end, and outputs nobody asks for, have no data.
            outputs = ADAPTERS[operator](list(map(np.asarray, inputs)), attributes_of(node))
            check_outputs(case.name, outputs[: len(node.output)], expected, case.rtol, case.atol)
            done[case.name] += 1
    assert len(done) == len(cases)


def stored_batch_norms():
    """Models that PyTorch once exported, with the outputs of that time."""
    from onnx.backend.test.loader import load_model_tests

    return [case for case in load_model_tests(kind="pytorch-converted") if "BatchNorm" in case.name]


def test_stored_batch_norms():
    import onnx
    from onnx import numpy_helper

    cases = stored_batch_norms()
    assert len(cases) >= 5
    for case in cases:
        folder = Path(case.model_dir)
        graph = onnx.load(folder / "model.onnx").graph
        (node,) = graph.node
        known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
        fed = [value.name for value in graph.input if value.name not in known]
        data = {
            path.stem: numpy_helper.to_array(onnx.load_tensor(path))
            for path in (folder / "test_data_set_0").glob("*.pb")
        }
        known |= {name: data[f"input_{k}"] for k, name in enumerate(fed)}
        outputs = batch_normalization([known[name] for name in node.input], attributes_of(node))
        check_outputs(case.name, outputs, [data["output_0"]], case.rtol, case.atol)
