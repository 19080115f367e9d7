"""The comparison's own parts: two servers side by side, and what the report makes of figures."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from collab.bench import peers
from collab.bench.plans import ALL_PEERS, OURS, OURS_SIGNED_IN, PEERS, PLANS, Y_WEBSOCKET, Y_WEBSOCKET_BUN, Goal, Plan
from collab.bench.report import draw_curves, verdict, write_report

SIGNED_IN = [plan for plan in PLANS if OURS_SIGNED_IN in plan.candidates]


@pytest.mark.server
async def test_what_authentication_costs_is_seen_side_by_side() -> None:
    plan = Plan(
        "presence", "", (), candidates=(OURS_SIGNED_IN,), beside=OURS, seconds=0.5, quick={"clients": 4, "rate": 20}
    )
    told: list[str] = []
    figures = await peers._measure(plan, OURS_SIGNED_IN, True, lambda done, what: told.append(what))
    assert figures["right"], figures
    assert figures["cpu_to_beside"] > 0 and figures["sent"] == 4 * 20 / 2
    assert "moving" in told


def test_authentication_may_cost_five_percent_and_an_attack_threefold_latency() -> None:
    bounds = {(plan.scenario, goal.key): goal.factor for plan in SIGNED_IN for goal in plan.goals if goal.factor}
    assert bounds == {
        ("everybody", "cpu_to_beside"): 1.05,
        ("presence", "cpu_to_beside"): 1.05,
        ("flood", "flood_ratio"): 3.0,
        ("costly", "costly_ratio"): 3.0,
    }


def test_every_plan_has_a_row_of_its_own_and_every_scenario_one_of_the_generator() -> None:
    one: dict[str, Any] = {"right": True, "generator_share": 0.25}
    runs = {(plan, candidate): [one] for plan in PLANS for candidate in plan.candidates}
    for plan in SIGNED_IN:
        runs[plan, OURS_SIGNED_IN] = [
            {**one, "cpu_to_beside": ratio, "calm_p99_ms": 2.0, "flood_p99_ms": 8.0, "flood_ratio": 4.0}
            for ratio in (1.0, 1.02, 1.3)
        ]
    lines = write_report(list(PLANS), runs, False).splitlines()
    for plan in PLANS:
        assert sum(line.startswith(f"| {plan.title} |") for line in lines) == (1 if plan.goals else 0)
        assert sum(line.startswith(f"| {plan.scenario} |") for line in lines) == 1
    costs = [line for line in lines if "with tokens to without" in line]
    assert [line.endswith("|  |  | 1.02 |  |  |  | <= 1.05 | 1.02 | yes |") for line in costs] == [True, True], costs
    assert [line for line in lines if "p99 latency before" in line][0].endswith("|  |  | 2.00 |  |  |  |  |  |  |")
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
    assert verdict(goal, ours, best) == said


def test_wherever_a_p99_is_shown_the_p50_stands_before_it() -> None:
    for plan in PLANS:
        keys = [goal.key for goal in plan.goals]
        for at, key in enumerate(keys):
            if "p99" in key:
                assert keys[at - 1] == key.replace("p99", "p50"), plan.title


def test_latency_is_not_bought_with_more_cpu_than_the_best_peer_uses() -> None:
    wanted = {
        plan.scenario: {goal.key: (goal.factor, goal.against) for goal in plan.goals}
        for plan in PLANS
        if plan.scenario in ("everybody", "presence") and Y_WEBSOCKET_BUN in plan.candidates
    }
    assert wanted == {
        "everybody": {
            "cpu_ms_per_1000": (1.0, ALL_PEERS),
            "p50_ms": (1.0, ()),
            "p99_ms": (1.0, (Y_WEBSOCKET,)),
        },
        "presence": {
            "cpu_ms_per_1000": (0.6, ALL_PEERS),
            "p50_ms": (1.5, ()),
            "p99_ms": (1.0, (Y_WEBSOCKET,)),
        },
    }


def step(rate: float, p50: float | None, *, saturated: bool = False) -> dict[str, Any]:
    return {"sent_per_s": rate, "core_share": rate / 1000, "p50_ms": p50, "p99_ms": p50, "saturated": saturated}


def test_curves_are_medians_of_what_all_repetitions_have_and_end_at_saturation() -> None:
    (plan,) = (plan for plan in PLANS if plan.scenario == "load")
    ours = [
        {"right": True, "steps": [step(50, p50), step(100, 2.0), step(200, None, saturated=True)]}
        for p50 in (1.0, 2.0, 1.5)
    ]
    ours[1]["steps"].pop()
    bun = [{"right": True, "steps": [step(50, 0.5), step(100, 900.0, saturated=True)]}]
    runs = {(plan, OURS): ours, (plan, Y_WEBSOCKET_BUN): bun, (plan, Y_WEBSOCKET): [{"right": False, "error": "none"}]}
    text = write_report([plan], runs, False)
    assert f"| edits/s | {OURS.name} | {Y_WEBSOCKET_BUN.name} |" in text
    assert "| 50 | 5%, 1.50, 1.50 | 5%, 0.50, 0.50 |" in text
    assert "| 100 | 10%, 2.00, 2.00 | saturated |" in text
    assert "| 200 |" not in text, "one repetition did not come as far"
    picture = draw_curves([plan], runs)
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture.count("<polyline") == 6 and picture.count("\u00d7") == 3, "only the second one has reached its limit"
    assert draw_curves([], {}) == "" and "idle until" not in write_report([], {}, False)


def test_what_an_echo_costs_is_said_where_a_crowd_was_measured_with_and_without() -> None:
    crowds = [plan for plan in PLANS if plan.sizes.get("clients") == 500]
    runs = {(plan, OURS): [{"right": True, "server_cpu_s": 1.0}] for plan in crowds}
    assert "us each" not in write_report(crowds, runs, False), "no echo was counted"
    runs[crowds[1], OURS] = [{"right": True, "server_cpu_s": 3.0, "echoes": 100_000}]
    assert "costs 20 us each" in write_report(crowds, runs, False)
    assert "us each" not in write_report(crowds[:1], runs, False)
