"""The comparison's own parts: two servers side by side, and what the report makes of figures."""

from __future__ import annotations

from typing import Any

import pytest

from collab.bench import peers
from collab.bench.peers import OURS, OURS_SIGNED_IN, PEERS, PLANS, Goal, Plan

SIGNED_IN = [plan for plan in PLANS if OURS_SIGNED_IN in plan.candidates]


async def test_what_authentication_costs_is_seen_side_by_side() -> None:
    plan = Plan(
        "presence", "", (), candidates=(OURS_SIGNED_IN,), beside=OURS, seconds=0.5, quick={"clients": 4, "rate": 20}
    )
    told: list[str] = []
    figures = await peers._measure(plan, OURS_SIGNED_IN, True, lambda done, what: told.append(what))
    assert figures["right"], figures
    assert figures["cpu_to_beside"] > 0 and figures["sent"] == 4 * 20 / 2
    assert "moving" in told


def test_authentication_may_cost_five_percent_and_a_flood_threefold_latency() -> None:
    bounds = {(plan.scenario, goal.key): goal.factor for plan in SIGNED_IN for goal in plan.goals if goal.factor}
    assert bounds == {
        ("everybody", "cpu_to_beside"): 1.05,
        ("presence", "cpu_to_beside"): 1.05,
        ("flood", "flood_ratio"): 3.0,
    }


def test_every_plan_has_a_row_of_its_own_and_every_scenario_one_of_the_generator() -> None:
    one: dict[str, Any] = {"right": True, "generator_share": 0.25}
    runs = {(plan, candidate): [one] for plan in PLANS for candidate in plan.candidates}
    for plan in SIGNED_IN:
        runs[plan, OURS_SIGNED_IN] = [
            {**one, "cpu_to_beside": ratio, "calm_p99_ms": 2.0, "flood_p99_ms": 8.0, "flood_ratio": 4.0}
            for ratio in (1.0, 1.02, 1.3)
        ]
    lines = peers._report(list(PLANS), runs, False).splitlines()
    for plan in PLANS:
        assert sum(line.startswith(f"| {plan.title} |") for line in lines) == 1
        assert sum(line.startswith(f"| {plan.scenario} |") for line in lines) == 1
    costs = [line for line in lines if "with tokens to without" in line]
    assert [line.endswith("|  |  | 1.02 |  |  | <= 1.05 | 1.02 | yes |") for line in costs] == [True, True], costs
    assert [line for line in lines if "latency before" in line][0].endswith("|  |  | 2.00 |  |  |  |  |  |")
    assert [line for line in lines if "meanwhile to before" in line][0].endswith("| <= 3 | 4.00 | **no** |")


@pytest.mark.parametrize(
    ("goal", "ours", "best", "said"),
    [
        (Goal("k", "m", 1.5), 1.4, None, ("<= 1.5", "1.40", "yes")),
        (Goal("k", "m", 1.5), 1.6, None, ("<= 1.5", "1.60", "**no**")),
        (Goal("k", "m", 1.5), None, None, ("<= 1.5", "failed", "**no**")),
        (Goal("k", "m", 0.5, PEERS), 4.0, 10.0, ("<= 0.5 x", "0.40 x", "yes")),
        (Goal("k", "m", 3.0, PEERS, higher=True), 20.0, 10.0, (">= 3 x", "2.00 x", "**no**")),
        (Goal("k", "m", 3.0, PEERS), 20.0, None, ("<= 3 x", "no peer", "yes")),
        (Goal("k", "m", None), 20.0, None, ("", "", "")),
    ],
)
def test_what_is_reached(goal: Goal, ours: float | None, best: float | None, said: tuple[str, str, str]) -> None:
    assert peers._verdict(goal, ours, best) == said
