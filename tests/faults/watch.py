"""A real Prometheus with the rules of ``docs/deploy/prometheus``, in which a second stands for a minute.

Strategy: every duration of the rules is divided by `FASTER`, and Prometheus looks once a second where an operator's
looks once a minute. So a fault of ten seconds is what one of ten minutes is to an operator, and rates are what they
are. Few looks stand for many, so what the 99th of a hundred takes is found out worse than by an operator's Prometheus.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import aiohttp
import yaml

RULES = Path(__file__).resolve().parents[2] / "docs" / "deploy" / "prometheus" / "collab.rules.yml"

FASTER = 60

_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_IN_QUERY = re.compile(r"\[(\d+)([smhd])\]|\boffset (\d+)([smhd])\b")


def faster_rules() -> str:
    """Give the rules, with every duration divided by `FASTER`."""
    rules: dict[str, Any] = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        for rule in group["rules"]:
            rule["expr"] = _IN_QUERY.sub(_shorten, rule["expr"])
            if "for" in rule:
                rule["for"] = _divided(rule["for"][:-1], rule["for"][-1])
    return yaml.safe_dump(rules)


def window(alert: str) -> float:
    """Give the longest time that an alert looks back, in the seconds of these rules."""
    (group,) = yaml.safe_load(faster_rules())["groups"]
    (query,) = [rule["expr"] for rule in group["rules"] if rule["alert"] == alert]
    return max([int(found) / 1_000 for found in re.findall(r"\[(\d+)ms\]", query)], default=0.0)


def _shorten(found: re.Match[str]) -> str:
    if found[1]:
        return f"[{_divided(found[1], found[2])}]"
    return f"offset {_divided(found[3], found[4])}"


def _divided(number: str, unit: str) -> str:
    return f"{int(number) * _SECONDS[unit] * 1_000 // FASTER}ms"


class Alerts:
    """The alerts of a running Prometheus.

    Args:
        url: of Prometheus.
        nodes: the names of the nodes, by the addresses from which their metrics are read.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, nodes: dict[str, str]) -> None:
        self._session = session
        self._url = url
        self._nodes = nodes

    async def firing(self) -> set[tuple[str, str]]:
        """Give the alerts that fire now, each with the node that it is about."""
        async with self._session.get(f"{self._url}/api/v1/alerts") as answer:
            told = await answer.json()
        assert told["status"] == "success", told
        return {
            (alert["labels"]["alertname"], self._nodes[alert["labels"]["instance"]])
            for alert in told["data"]["alerts"]
            if alert["state"] == "firing"
        }

    async def scraped(self) -> bool:
        """Say whether all nodes were read."""
        try:
            async with self._session.get(f"{self._url}/api/v1/query", params={"query": "up == 1"}) as answer:
                told = await answer.json()
        except aiohttp.ClientError:
            return False
        return len(told["data"]["result"]) == len(self._nodes)
