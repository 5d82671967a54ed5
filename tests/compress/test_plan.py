import json

import pytest

from compress.errors import PlanError
from compress.plan import Choice, Plan

CHOICES = {"a": Choice("svd", (4,)), "b": Choice("tucker2", (3, 2))}


def test_json_gives_the_plan_back():
    plan = Plan(CHOICES)
    assert dict(Plan.from_json(plan.to_json())) == CHOICES
    assert len(plan) == 2


def test_equal_plans_give_equal_text_in_whatever_order_they_were_made():
    turned = Plan({name: CHOICES[name] for name in reversed(CHOICES)})
    assert turned.to_json() == Plan(CHOICES).to_json()


def test_a_choice_is_told_with_its_ranks():
    assert str(CHOICES["b"]) == "tucker2(3, 2)"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "malformed"),
        ("[]", "malformed"),
        ({"version": 2, "layers": {}}, "version 2 came, version 1"),
        ({"version": 1}, "malformed"),
        ({"version": 1, "layers": {"a": 3}}, "malformed"),
        ({"version": 1, "layers": {"a": {"method": "magic", "ranks": [1]}}}, "'magic' came"),
        ({"version": 1, "layers": {"a": {"method": "svd", "ranks": [0]}}}, "positive integers"),
        ({"version": 1, "layers": {"a": {"method": "svd", "ranks": [True]}}}, "positive integers"),
        ({"version": 1, "layers": {"a": {"method": "svd", "ranks": "4"}}}, "positive integers"),
    ],
)
def test_what_is_no_plan_is_refused(document, message):
    text = document if isinstance(document, str) else json.dumps(document)
    with pytest.raises(PlanError, match=message):
        Plan.from_json(text)
