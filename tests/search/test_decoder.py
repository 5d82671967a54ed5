"""The process that decodes pictures: what it returns, what it may take, and how it ends."""

import gc
import io
import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from search.data import decoder as decoder_module
from search.data.decoder import Decoder
from search.data.picture_header import read_header
from search.errors import DataError
from tests.archives import encoded, picture

LITTLE = picture(1)
PIXELS = np.asarray(Image.open(io.BytesIO(LITTLE)))


@pytest.fixture(scope="module")
def decoder():
    return Decoder()


def decoded(decoder, content, name="x.png"):
    """(H, W, 3)."""
    header = read_header(name, content)
    found = decoder.decode(name, header, content)
    return np.frombuffer(found, np.uint8).reshape(header.height, header.width, 3)


def drawing(mode="RGB"):
    """A picture whose values change from place to place in every channel."""
    values = np.arange(20 * 30 * 3, dtype=np.uint32).reshape(20, 30, 3) * 7 % 256
    return Image.fromarray(values.astype(np.uint8)).convert(mode)


FRAMES = {"save_all": True, "append_images": [drawing().rotate(180)]}
FORMS = {
    "PNG": encoded(drawing()),
    "PNG with alpha": encoded(drawing("RGBA")),
    "PNG of one bit": encoded(drawing("1")),
    "PNG with a palette": encoded(drawing("P"), transparency=b"\x00\x80\xff"),
    "PNG in motion": encoded(drawing(), **FRAMES),
    "JPEG": encoded(drawing(), "JPEG"),
    "JPEG in grey": encoded(drawing("L"), "JPEG"),
    "JPEG of inks": encoded(drawing("CMYK"), "JPEG"),
    "JPEG in steps": encoded(drawing(), "JPEG", progressive=True),
    "JPEG of several": encoded(drawing(), "MPO", **FRAMES),
    "WebP": encoded(drawing(), "WEBP"),
    "WebP without loss": encoded(drawing("RGBA"), "WEBP", lossless=True),
    "WebP in motion": encoded(drawing(), "WEBP", **FRAMES),
}


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_pixels_are_those_of_pillow(decoder, content):
    with Image.open(io.BytesIO(content)) as image:
        wanted = np.asarray(image.convert("RGB"))
    assert np.array_equal(decoded(decoder, content), wanted)


@settings(max_examples=200, deadline=None)
@given(
    content=st.sampled_from([FORMS["PNG"], FORMS["JPEG"], FORMS["WebP"], FORMS["WebP in motion"]]),
    where=st.floats(0, 1),
    bits=st.binary(min_size=1, max_size=8),
)
def test_changed_bytes_are_refused_or_harmless(decoder, content, where, bits):
    at = int(where * len(content))
    changed = content[:at] + bits + content[at + len(bits) :]
    with suppress(DataError):
        decoded(decoder, changed)
    assert np.array_equal(decoded(decoder, LITTLE), PIXELS)


def test_another_size_than_the_header_says_is_refused(decoder):
    header = read_header("x.png", LITTLE)._replace(width=50)
    with pytest.raises(DataError, match=r"'x\.png' cannot be decoded: it has \(5, 6\) pixels"):
        decoder.decode("x.png", header, LITTLE)


def standing_in(monkeypatch, code):
    """A decoder whose process runs this instead."""

    def start(_):
        return subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    monkeypatch.setattr(decoder_module, "start_confined", start)
    return Decoder()


REAL = """
from search.data import decoder
{}
from search.data import decoding
{}
decoding.main()
"""


def test_a_picture_that_takes_too_much_memory_is_named_and_the_next_is_decoded(monkeypatch):
    decoder = standing_in(monkeypatch, REAL.format("decoder.MEMORY_BYTES = 8 << 20", ""))
    with pytest.raises(DataError, match=r"'large\.png' cannot be decoded: MemoryError"):
        decoded(decoder, encoded(Image.new("RGB", (3000, 2000))), "large.png")
    assert decoded(decoder, LITTLE).shape == (6, 5, 3)


@pytest.mark.parametrize(
    "decoding",
    [
        "while True: pass",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
        "import os; os._exit(0)",
    ],
    ids=["never ends", "crashes", "leaves"],
)
def test_a_picture_that_breaks_its_decoder_is_named_and_the_next_is_decoded(monkeypatch, decoding):
    breaking = f"""
good = decoding.pixels
def pixels(kind, size, content):
    if content.endswith(b'hostile'):
        {decoding}
    return good(kind, size, content)
decoding.pixels = pixels
"""
    decoder = standing_in(monkeypatch, REAL.format("decoder.SECONDS = 0.01", breaking))
    with pytest.raises(DataError, match=r"'hostile\.png' cannot be decoded: it broke its decoder"):
        decoded(decoder, LITTLE + b"hostile", "hostile.png")
    assert np.array_equal(decoded(decoder, LITTLE), PIXELS)


def test_a_process_that_somebody_ended_is_started_anew():
    decoder = Decoder()
    decoded(decoder, LITTLE)
    decoder._child.kill()
    decoder._child.wait()
    assert np.array_equal(decoded(decoder, LITTLE), PIXELS)


def test_an_answer_that_nobody_waited_for_is_given_to_nobody(monkeypatch, decoder):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(decoder_module, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            decoded(decoder, picture(2))
    assert np.array_equal(decoded(decoder, LITTLE), PIXELS)


def test_threads_get_the_pictures_that_they_asked_for(decoder):
    contents = [picture(number) for number in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(partial(decoded, decoder), contents))
    for pixels, content in zip(found, contents, strict=True):
        assert np.array_equal(pixels, np.asarray(Image.open(io.BytesIO(content))))


def test_the_process_ends_when_nobody_can_ask_it_any_more():
    decoder = Decoder()
    decoded(decoder, LITTLE)
    decoder._child.stdin.close()
    assert decoder._child.wait(60) == 0


def test_each_picture_has_its_own_time(monkeypatch):
    telling = """
given = []
def pixels(*_):
    raise ValueError(given)
decoding.limit_time, decoding.pixels = given.append, pixels
"""
    decoder = standing_in(monkeypatch, REAL.format("decoder.SECONDS = 7", telling))
    for times in ("[7]", "[7, 7]"):
        with pytest.raises(DataError, match=re.escape(f"cannot be decoded: {times}")):
            decoded(decoder, LITTLE)


@pytest.mark.parametrize(
    "answer",
    ["ANSWER.pack(True, 1 << 40)", "ANSWER.pack(False, 1 << 40)", "ANSWER.pack(True, 90)"],
    ids=["pixels without end", "a message without end", "too few pixels"],
)
def test_answers_to_what_was_not_asked_are_not_believed(monkeypatch, answer):
    code = (
        "import sys\nfrom search.data.decoder import ANSWER, REQUEST\n"
        "sys.stdin.buffer.read(REQUEST.size)\n"
        f"sys.stdout.buffer.write({answer} + bytes(50))\n"
    )
    with pytest.raises(DataError, match="broke its decoder"):
        decoded(standing_in(monkeypatch, code), LITTLE)


def test_the_process_is_limited_and_ends_with_its_decoder(monkeypatch):
    monkeypatch.setenv("RANKSEARCH_TOKEN", "secret")
    decoder = Decoder()
    decoded(decoder, LITTLE)
    child = decoder._child
    process = Path(f"/proc/{child.pid}")
    limits = {line[:26].strip(): line[26:].split()[0] for line in _lines(process / "limits")}
    assert limits["Max file size"] == limits["Max core file size"] == "0"
    assert limits["Max cpu time"].isdigit()
    assert 1 << 31 < int(limits["Max data size"]) < 3 << 30
    assert "RANKSEARCH_TOKEN" not in (process / "environ").read_text()
    del decoder
    gc.collect()
    assert child.returncode is not None


def _lines(path):
    return path.read_text().splitlines()


def test_it_has_the_decoders_of_three_formats_and_no_torch():
    code = "import search.data.decoding, json, sys; print(json.dumps(list(sys.modules)))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout
    loaded = set(json.loads(told))
    plugins = {name for name in loaded if name.startswith("PIL.") and name.endswith("Plugin")}
    assert plugins == {f"PIL.{name}ImagePlugin" for name in ("Jpeg", "Png", "WebP")}
    assert not {"torch", "numpy"} & loaded
