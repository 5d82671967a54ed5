import uuid
from itertools import pairwise

import pytest

from service.store import ids
from service.store.ids import new_id


def test_an_id_is_its_prefix_and_a_uuid_of_version_7():
    prefix, _, digits = new_id("job").partition("_")
    value = uuid.UUID(digits)
    assert prefix == "job"
    assert (value.version, value.variant) == (7, uuid.RFC_4122)


def test_the_first_48_bits_are_the_milliseconds(monkeypatch: pytest.MonkeyPatch):
    # The example of RFC 9562, appendix A.6: 2022-02-22T19:22:22Z is 0x017F22E279B0.
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_645_557_742_000 * 1_000_000)
    assert new_id("mod").startswith("mod_017f22e279b07000")


def test_ids_sort_by_the_time_they_were_made(monkeypatch: pytest.MonkeyPatch):
    times = iter(range(1_645_557_742_000_000_000, 1_645_557_742_004_000_000, 1_000))
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(times))
    made = [new_id("cnd") for _ in range(4000)]
    assert all(earlier < later for earlier, later in pairwise(made))


def test_ids_of_one_moment_differ(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_645_557_742_000_000_000)
    assert len({new_id("art") for _ in range(1000)}) == 1000
