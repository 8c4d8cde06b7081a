"""Options, the references on the path, and the table of worst errors after a run."""

import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
for folder in (TESTS, TESTS / "python"):
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

import checks  # noqa: E402
import normkit  # noqa: E402

# With stand-ins for devices and libraries, which need an extension built for them; and with real ones.
ON_HOST = normkit._ext._cuda_architectures() == "host"
collect_ignore = [] if ON_HOST else ["test_cuda.py"]
if ON_HOST or not normkit.cuda.is_available():
    collect_ignore.append("test_cuda_device.py")

REPORTS: set[str] = set()  # sources of the collected tests' report markers


def pytest_addoption(parser):
    parser.addoption(
        "--deep",
        action="store_true",
        help="normkit: every element type at every size, more seeds and shapes (slow)",
    )


@pytest.fixture(scope="session")
def deep(request):
    return request.config.getoption("--deep")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """A test marked `compares` fails unless the helpers of checks.py compared at least one value for it."""
    before = checks.COUNT.values
    result = yield  # a failure or a skip goes on from here
    if item.get_closest_marker("compares") and checks.COUNT.values == before:
        pytest.fail("this test compared nothing")
    return result


@pytest.fixture
def threads():
    """Sets the thread count and restores it."""
    import normkit

    before = normkit.get_num_threads()
    yield normkit.set_num_threads
    normkit.set_num_threads(before)


def pytest_configure(config):
    config.addinivalue_line("markers", "compares: fails unless at least one value was compared")
    config.addinivalue_line(
        "markers", "alone: measures time or memory, or needs most of it: no other test runs meanwhile"
    )
    config.addinivalue_line("markers", "report(source): the right answer to a fault that somebody reported")


def pytest_collection_modifyitems(items):
    for item in items:
        REPORTS.update(source for mark in item.iter_markers("report") for source in mark.args)


def pytest_sessionfinish(session):
    """With pytest-xdist: what a worker found goes to the process that prints it."""
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["reports"] = sorted(REPORTS)
        output["worst"] = [(*key, *value) for key, value in checks.WORST.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    output = getattr(node, "workeroutput", {})
    REPORTS.update(output.get("reports", ()))
    for found in output.get("worst", ()):
        checks.remember(*found)


def pytest_terminal_summary(terminalreporter):
    terminalreporter.write_line(f"{len(REPORTS)} reports from the field have a test (marker: report)")
    if checks.WORST:
        terminalreporter.write_sep(
            "-", "worst errors (ULP of the output type; gradients as a share of their bound)"
        )
        for line in checks.worst_table():
            terminalreporter.write_line(line)
