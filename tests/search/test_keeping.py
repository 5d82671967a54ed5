from torch import nn

from compress.plan import Choice, Plan
from search.keeping import Kept

PLANS = [Plan({"layer": Choice("svd", (rank,))}) for rank in (1, 2, 3)]


def network():
    return nn.Linear(9, 10)  # of 400 bytes


def test_the_last_network_is_kept_whatever_its_size():
    kept, networks = Kept(most_bytes=0), [network() for _ in PLANS]
    for plan, each in zip(PLANS, networks, strict=True):
        kept.put(plan, each)
        assert kept.get(Plan(dict(plan))) is each
    assert [kept.get(plan) for plan in PLANS[:2]] == [None, None]


def test_the_oldest_make_room():
    kept, networks = Kept(most_bytes=800), [network() for _ in PLANS]
    kept.put(PLANS[0], networks[0])
    kept.put(PLANS[1], networks[1])
    assert kept.get(PLANS[0]) is networks[0]
    kept.put(PLANS[0], networks[0])  # which is thereby the newest
    kept.put(PLANS[2], networks[2])
    assert [kept.get(plan) for plan in PLANS] == [networks[0], None, networks[2]]
