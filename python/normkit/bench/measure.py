"""Takes the measurements: contenders in turn, adaptive inner loops, memcpy before, between and after."""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

import normkit
from normkit.bench import cases, memory
from normkit.bench.cases import Case
from normkit.bench.operations import Array, worst_errors
from normkit.bench.peers import PEERS, Peer, Serial, Unavailable

SAMPLE_SECONDS = 2e-3
VOID_SHARE = 0.10
BUSY_SHARE = 0.05
MEMCPY_SAMPLES = 15
# Processor time of other cores is booked at timer ticks, up to 4 ms apart: look over two of them.
IDLE_SECONDS = 9e-3
IDLE_LIMIT_SECONDS = 0.3
WAKE_SECONDS = 9e-3
# Calls longer than this need nothing brought into a cache before a sample.
LONG_SECONDS = 30e-3

# Of a case that names no peers: all but normkit against itself.
DEFAULT_PEERS = [name for name in PEERS if name != "serial"]

# Runs a contender's call so many times.
Repeat = Callable[[int], None]


class Timing(NamedTuple):
    """Seconds per call: median and quartiles of the samples."""

    median: float
    low: float
    high: float


class Group(NamedTuple):
    """All timings of a case by contender, memcpy included; worst errors; who stayed out, and why."""

    case: Case
    timings: dict[str, Timing]
    errors: dict[str, float]
    absent: dict[str, str]
    memcpy_before: float
    memcpy_after: float
    others: float  # processors kept busy by other processes meanwhile

    @property
    def drift(self) -> float:
        """By which share memcpy moved during the group."""
        fast, slow = sorted((self.memcpy_before, self.memcpy_after))
        return slow / fast - 1

    @property
    def void(self) -> bool:
        """Whether memcpy moved so much that the machine was not steady."""
        return self.drift > VOID_SHARE

    @property
    def busy(self) -> bool:
        """Whether other processes took so much time that threads may have waited for a processor."""
        return self.others > BUSY_SHARE

    @property
    def wrong(self) -> list[str]:
        """Contenders whose error is beyond all rounding."""
        return [name for name, error in self.errors.items() if error > cases.TOLERANCE[self.case.dtype]]

    @property
    def peers(self) -> list[str]:
        """Who was timed beside normkit."""
        return [name for name in self.timings if name not in ("normkit", "memcpy")]

    @property
    def speed(self) -> float:
        """Of normkit: bytes that must be read and written, per second."""
        return self.case.bytes / self.timings["normkit"].median

    @property
    def memcpy_speed(self) -> float:
        """Bytes that memcpy reads and writes per second."""
        return 2 * self.case.output_bytes / self.timings["memcpy"].median

    def ratio(self, name: str) -> float:
        """Time of that contender / time of normkit: above 1, normkit is faster."""
        return self.timings[name].median / self.timings["normkit"].median

    @property
    def behind(self) -> list[str]:
        """Peers that normkit does not beat by the case's limit."""
        return [name for name in self.peers if self.ratio(name) < self.case.limit]


class Copy:
    """Copies ``size`` bytes between two arrays that stay, each thread its own part, over and over.

    The threads meet once before and once after a sample, not for every copy: an upper line, no thread pool.
    Each has a processor of its own, for two that are woken on the same one share it for a whole sample.
    One call of np.copyto makes many copies, each shifted by a cache line from the one before: separate calls
    from several threads would wait for the interpreter's lock.
    """

    SHIFT = 64
    AT_ONCE = 128

    def __init__(self, size: int, threads: int) -> None:
        self._part = max(1, size // threads)
        self._at_once = max(self.AT_ONCE, self._part // (16 * self.SHIFT))
        self._pairs = [(self._view(), self._view()) for _ in range(threads)]
        self._meet = threading.Barrier(threads + 1)
        self._count = 0
        for number in range(threads if threads > 1 else 0):
            threading.Thread(target=self._work, args=(number,), daemon=True).start()

    def repeat(self, count: int) -> None:
        """``count`` copies on all threads."""
        self._count = count
        if len(self._pairs) == 1:
            self._copy(*self._pairs[0])
            return
        self._meet.wait()
        self._meet.wait()

    def close(self) -> None:
        """Ends the threads."""
        self._meet.abort()

    def _view(self) -> Array:
        """As many overlapping parts of an array as one call copies."""
        array = memory.empty((self._part + self.SHIFT * self._at_once,), np.uint8)
        return as_strided(array, (self._at_once, self._part), (self.SHIFT, 1))

    def _work(self, number: int) -> None:
        if hasattr(os, "sched_setaffinity"):
            allowed = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, [allowed[number % len(allowed)]])  # of this thread only
        with contextlib.suppress(threading.BrokenBarrierError):
            while True:
                self._meet.wait()
                self._copy(*self._pairs[number])
                self._meet.wait()

    def _copy(self, target: Array, source: Array) -> None:
        for begin in range(0, self._count, self._at_once):
            count = min(self._at_once, self._count - begin)
            np.copyto(target[:count], source[:count])


def load_peers(names: list[str]) -> list[Peer]:
    """normkit first, then the installed ones of the named peers."""
    loaded: list[Peer] = []
    for name in ["normkit", *(name for name in names if name != "normkit")]:
        try:
            loaded.append(PEERS[name]())
        except ImportError as error:
            print(f"normkit bench: {name} is not installed, left out ({error})", file=sys.stderr)
    return loaded


def measure(case: Case, peers: list[Peer], samples: int) -> Group | str:
    """Checks every contender, then times all of them in turn; a reason if normkit cannot run the case."""
    arrays = cases.make_arrays(case)
    calls: dict[str, Callable[[], Any]] = {}
    computed: dict[str, tuple[Array, ...]] = {}
    absent: dict[str, str] = {}
    threads: dict[str, int] = {}
    for peer in peers:
        if peer.name != "normkit" and peer.name not in (case.peers or DEFAULT_PEERS):
            continue
        threads[peer.name] = 1 if isinstance(peer, Serial) else case.threads
        try:
            call = peer.prepare(case, arrays)
            with normkit.num_threads(threads[peer.name]):
                computed[peer.name] = peer.results(call())
        except Unavailable as reason:
            if peer.name == "normkit":
                return str(reason)
            absent[peer.name] = str(reason)
            continue
        except Exception as error:
            if peer.name == "normkit":
                raise
            absent[peer.name] = f"failed: {error}"  # a peer's defect must not end the comparison
            continue
        calls[peer.name] = call
    if case.memory == "reused":
        memory.gather_heap()
    errors = worst_errors(case.geometry, case.which, arrays, computed)
    computed.clear()
    copy = Copy(case.output_bytes, case.threads)
    memcpy: dict[str, Repeat] = {"memcpy": copy.repeat}
    repeats = {name: _repeater(call, threads[name]) for name, call in calls.items()} | memcpy
    begin, others_begin = time.perf_counter(), _others_seconds()
    before = time_in_turn(memcpy, MEMCPY_SAMPLES, case.threads)["memcpy"].median
    timings = time_in_turn(repeats, samples, case.threads)
    after = time_in_turn(memcpy, MEMCPY_SAMPLES, case.threads)["memcpy"].median
    others = (_others_seconds() - others_begin) / (time.perf_counter() - begin)
    copy.close()
    return Group(case, timings, errors, absent, before, after, others)


def time_in_turn(repeats: dict[str, Repeat], samples: int, threads: int) -> dict[str, Timing]:
    """A B C, C B A, ...: one sample of each contender per turn; its loop count is fixed beforehand.

    Every other turn goes backwards, for on a busy system the first after a rest is served better or worse.
    """
    counts: dict[str, int] = {}
    for name, repeat in repeats.items():
        _wait_until_idle()
        _warm_up(repeat, threads)
        counts[name] = _calibrate(repeat)
    seconds: dict[str, list[float]] = {name: [] for name in repeats}
    for turn in range(samples):
        for name, repeat in list(repeats.items())[:: -1 if turn % 2 else 1]:
            if threads > 1:
                _wait_until_idle()
            if threads > 1 or not seconds[name] or seconds[name][-1] < LONG_SECONDS:
                _warm_up(repeat, threads)
            begin = time.perf_counter()
            repeat(counts[name])
            seconds[name].append((time.perf_counter() - begin) / counts[name])
    return {name: _timing(values) for name, values in seconds.items()}


def _wait_until_idle() -> None:
    """Worker threads of some contenders spin for milliseconds after a call; lets them fall asleep.

    Without it, ONNX Runtime's spinning workers make PyTorch's next call up to 150 times slower.
    """
    end = time.perf_counter() + IDLE_LIMIT_SECONDS
    while time.perf_counter() < end:
        used = time.process_time()
        time.sleep(IDLE_SECONDS)
        if time.process_time() - used < IDLE_SECONDS / 10:
            return


def _warm_up(repeat: Repeat, threads: int) -> None:
    """Brings the arrays into the cache; wakes the contender's threads and waits until each has its own core.

    Threads woken together may share a core until the scheduler's next tick; a call then takes milliseconds.
    """
    end = time.perf_counter() + (WAKE_SECONDS if threads > 1 else 0)
    repeat(1)
    while time.perf_counter() < end:
        repeat(1)


def _calibrate(repeat: Repeat) -> int:
    """How many calls fill a sample; also the warm-up."""
    count = 1
    repeat(1)
    while True:
        begin = time.perf_counter()
        repeat(count)
        elapsed = time.perf_counter() - begin
        if elapsed >= SAMPLE_SECONDS / 2:
            return max(1, round(count * SAMPLE_SECONDS / elapsed))
        count *= 2


def _others_seconds() -> float:
    """Processor time that other processes have used so far; 0 where the system does not tell."""
    try:
        with open("/proc/stat") as file:
            fields = [int(field) for field in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return 0.0
    idle = sum(fields[3:5])  # the order is user, nice, system, idle, iowait, irq, softirq, steal
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK") - time.process_time()


def _repeater(call: Callable[[], object], threads: int) -> Repeat:
    def repeat(count: int) -> None:
        with normkit.num_threads(threads):
            for _ in range(count):
                call()

    return repeat


def _timing(values: list[float]) -> Timing:
    low, median, high = statistics.quantiles(values, n=4)
    return Timing(median, low, high)
