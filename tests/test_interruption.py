"""These test long calls: progress, callbacks that raise, threads beside them, Ctrl-C and forks."""

from __future__ import annotations

import copy
import itertools
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from images import noise
from ntkfast import NTK, unet, vanilla_cnn
from operators import operator, relative, run_python


@pytest.mark.parametrize("padding", ["zeros", "circular"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("side", "depth"), [(100, 5), (140, 3)])
def test_progress_rises_to_one(side, depth, threads, padding):
    seen = []
    net = vanilla_cnn(depth, 3, padding=padding)
    K = NTK(net, noise(side, side, 1, 0), storage="stream", threads=threads, progress=seen.append, channel_axis=-1)
    K @ np.ones(side * side)
    assert len(seen) > 1
    assert seen[-1] == 1
    assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(seen))


@pytest.mark.parametrize("call", ["product", "columns", "dense"])
def test_progress_of_every_call_ends_at_one(call):
    seen = []
    K = operator(progress=seen.append)
    {"product": lambda: K @ np.ones(72), "columns": lambda: K.columns([3]), "dense": K.dense}[call]()
    assert seen[-1:] == [1]


def test_an_exception_of_the_callback_stops_the_product():
    class Enough(Exception):  # noqa: N818
        pass

    enough = Enough("seen enough")
    calls = []

    def progress(fraction):
        calls.append(fraction)
        raise enough

    K = NTK(vanilla_cnn(3, 3), noise(300, 300, 1, 0), storage="stream", progress=progress, channel_axis=-1)
    start = time.perf_counter()
    with pytest.raises(Enough) as caught:
        K @ np.ones(90000)
    assert time.perf_counter() - start < 2  # the whole product takes ten times as long
    assert caught.value is enough
    assert len(calls) == 1
    assert calls[0] < 0.5


def test_nothing_is_half_stored():
    failing = [True]

    def progress(_fraction):
        if failing[0]:
            raise KeyError("stop")

    K = operator(storage="dense", progress=progress)
    with pytest.raises(KeyError, match="stop"):
        K @ np.ones(72)
    assert not K._engine.stored
    failing[0] = False
    assert relative(K @ np.ones(72), operator() @ np.ones(72)) <= 1e-13
    assert K._engine.stored


@pytest.mark.parametrize("storage", ["dense", "coarse", "fourier"])
def test_a_callback_that_multiplies_while_the_kernel_is_kept_is_told(storage):
    """It would wait for ever for what it stops from being kept, so that this runs in a process of its own."""
    what = {
        "dense": "vanilla_cnn(1, 3), np.ones((8, 8)), storage='dense'",
        "coarse": "unet(1), np.ones((8, 8)), storage='coarse'",
        "fourier": "vanilla_cnn(1, 3, padding='circular'), NoiseInput((8, 8))",
    }[storage]
    message = run_python(f"""
        import json
        import numpy as np
        from ntkfast import NTK, NoiseInput, unet, vanilla_cnn

        K = NTK({what}, progress=lambda fraction: K @ np.ones(64))
        assert K.storage == "{storage}"
        try:
            K @ np.ones(64)
        except RuntimeError as error:
            K._progress = None
            K @ np.ones(64)  # the lock is free again
            print(json.dumps(str(error)))
    """)
    assert message.startswith("progress must not multiply with the operator that calls it")


def test_copies_share_the_engine():
    K = operator(storage="dense")
    for made in (copy.copy(K), copy.deepcopy(K), copy.deepcopy({"kernel": K})["kernel"]):
        assert type(made) is NTK
        assert made is not K
        np.testing.assert_array_equal(made @ np.ones(72), K @ np.ones(72))
        made.lambda_max = 1.0
        assert K.lambda_max is None


def require_other_threads_run(call):
    """Let another thread of Python tick while ``call`` works, which it does only if the GIL is free."""
    count, running = [0], threading.Event()

    def tick():
        while not running.wait(0.001):
            count[0] += 1

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        before, start = count[0], time.perf_counter()
        call()
        ticks, seconds = count[0] - before, time.perf_counter() - start
    finally:
        running.set()
        thread.join()
    assert seconds > 0.05, "too short to tell"
    assert ticks > 10


def test_other_threads_run_during_a_product():
    K = NTK(vanilla_cnn(3, 3), noise(110, 110, 1, 0), storage="stream", threads=1, channel_axis=-1)
    require_other_threads_run(lambda: K @ np.ones(110 * 110))


def test_two_threads_may_share_an_operator():
    K = operator(storage="dense", shape=(24, 24, 1))
    v = noise(576, 4, 1, 0)[..., 0]
    results = [None] * 4

    def product(n):
        results[n] = K @ v[:, n]

    workers = [threading.Thread(target=product, args=(n,)) for n in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = operator(shape=(24, 24, 1)) @ v
    for n in range(4):
        assert relative(results[n], expected[:, n]) <= 1e-12


def seconds_until_stopped(setup, call, after):
    """Time ``call`` in its own process from SIGINT, sent ``after`` seconds into it, to its end; nan if over before.

    The signal comes from here: a thread over there could not send it while a call holds the GIL.
    """
    code = f"""
import time
import numpy as np
from ntkfast import NTK, unet, vanilla_cnn
from ntkfast.engine import memory
memory.available_memory = lambda: 1 << 40  # little is written before the call is stopped
image = np.random.default_rng(0).standard_normal
{setup}
print("ready", flush=True)
try:
    {call}
    print("nan", flush=True)
except KeyboardInterrupt:
    print(time.perf_counter(), flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        time.sleep(after)
        sent = time.perf_counter()
        process.send_signal(signal.SIGINT)
        return float(process.stdout.readline()) - sent


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(
    ("setup", "call"),
    [
        ("K = NTK(vanilla_cnn(1, 5), image((700, 700)), threads=1)", "K @ np.ones(490000)"),
        ("K = NTK(vanilla_cnn(1, 5), image((700, 700)), threads=2)", "K @ np.ones(490000)"),
        ("", "NTK(unet(3), image((512, 512)))"),  # bands near D = 0
        ("x = image((2048, 2048))", "NTK(vanilla_cnn(3, 5), x)"),  # planes
        # This matrix takes 3.2 GB, which no thread must fill beforehand.
        ("K = NTK(vanilla_cnn(2, 3), image((200, 200)), storage='dense')", "K @ np.ones(200**2)"),
        # This matrix takes 1 GB, of which the first band writes into every page.
        ("K = NTK(vanilla_cnn(3, 5), image((128, 128)), storage='stream')", "K.dense()"),
        # One strip of rows takes 0.9 s here.
        ("K = NTK(vanilla_cnn(5, 11), image((700, 700)))", "K.affinity(350, 350)"),
        # The fields in double are made here.
        ("K = NTK(unet(3), image((160, 160)), storage='stream')", "K._engine.columns(np.array([9999]))"),
        # Here 64 columns become padded rows, and the threads have sums.
        ("K, V = NTK(vanilla_cnn(1, 5), image((700, 700))), np.ones((490000, 64), np.float32)", "K @ V"),
    ],
    ids=[
        "product, 1 thread", "product, 2 threads", "construction, deep", "construction, large", "store", "dense",
        "strips", "fields of columns", "many columns",
    ],
)  # fmt: skip
def test_ctrl_c_stops_within_half_a_second(setup, call):
    # A loaded machine may add to a wait, never take from it: one of three in time shows that the engine asks often.
    assert any(seconds_until_stopped(setup, call, 0.2) < 0.5 for _ in range(3))


def test_the_gil_is_free_during_construction():
    image = noise(320, 320, 1, 0)
    require_other_threads_run(lambda: NTK(unet(2), image, storage="stream", threads=1, channel_axis=-1))


@pytest.mark.parametrize("threads", [1025, 10**5, 2**31, 10**20])
def test_too_many_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads must be at most 1024, got {threads}"):
        operator(threads=threads)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_computes():
    """The child has none of the threads of the parent's calls; the parent's next call makes them anew."""
    same = run_python(
        """
        import json, os, signal
        import numpy as np
        from ntkfast import NTK, vanilla_cnn

        K = NTK(vanilla_cnn(1, 3), np.random.default_rng(0).standard_normal((24, 24)), storage="stream", threads=2)
        v = np.ones(24**2, np.float32)
        expected = K @ v
        reader, writer = os.pipe()
        if os.fork() == 0:
            signal.alarm(20)  # ends it where it hangs
            with os.fdopen(writer, "wb") as file:
                file.write((K @ v).tobytes() + K.columns([5]).tobytes())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader, "rb") as file:
            result = file.read()
        print(json.dumps(result == expected.tobytes() + K.columns([5]).tobytes() and bool(np.all(K @ v == expected))))
        """,
        timeout=40,
    )
    assert same
