"""The alerts and the dashboard of ``docs/deploy``: their tools take them, and what they name is there and moves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml

from collab.transports.http.metrics_list import COUNTER, HISTOGRAM, METRICS
from tests.support import dashboard
from tests.support.hocuspocus import RawHocuspocus
from tests.support.prometheus import PrometheusFailed, prometheus, promtool
from tests.support.server import ServerProcess
from tests.support.waiting import eventually, happens
from tests.support.wsclient import LiveClient
from tests.transports import test_metrics

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "deploy" / "prometheus"
RULES = FOLDER / "collab.rules.yml"
TESTS, OF_WEEKS = FOLDER / "collab.rules.test.yml", FOLDER / "collab.rules.weeks.test.yml"
OPERATIONS = ROOT / "docs" / "operations.md"

_BY_SERIES = {metric.series: metric for metric in METRICS}
_SERIES = re.compile(r"\b((?:collab|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+)(=~|!~|!=|=)"([^"]*)"')
OF_SCRAPING = {"job", "instance"}
"""Labels that Prometheus puts on what it reads."""


def alerts() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    rules: list[dict[str, Any]] = group["rules"]
    return rules


def selectors(expression: str) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """Give the metrics of a query with the labels that are asked for."""
    for name, matchers in _SERIES.findall(expression):
        yield name, _MATCHER.findall(matchers)


def check(expression: str) -> None:
    """Check that a query asks for what there is, in the way of its kind."""
    assert expression.count("(") == expression.count(")"), expression
    found = list(selectors(expression))
    assert found or expression.startswith("up{"), expression
    for name, matchers in found:
        series = re.sub(r"_(bucket|sum|count)$", "", name) if name not in _BY_SERIES else name
        assert series in _BY_SERIES, name
        metric = _BY_SERIES[series]
        assert (metric.kind == HISTOGRAM) == (series != name), name
        # What only grows tells something by its growth alone.
        if metric.kind in (COUNTER, HISTOGRAM):
            assert re.search(rf"\b(rate|increase)\({name}", expression), expression
        assert {label for label, _, _ in matchers} <= {*metric.labels, *OF_SCRAPING}, expression
    labels = {label for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(", ")}
    known = {label for name, _ in found for label in _BY_SERIES.get(name, METRICS[0]).labels}
    assert labels <= {*known, *OF_SCRAPING, "le"}, expression


@pytest.mark.prometheus
def test_promtool_takes_the_rules_and_each_fires_for_who_is_in_trouble() -> None:
    assert f"{len(alerts())} rules found" in promtool("check", "rules", RULES.name, directory=FOLDER)
    assert promtool("test", "rules", TESTS.name, OF_WEEKS.name, directory=FOLDER).count("SUCCESS") == 2


@pytest.mark.prometheus
def test_the_test_of_a_rule_notices_a_change_of_it(tmp_path: Path) -> None:
    text = RULES.read_text(encoding="utf-8")
    assert text.count("expr: collab_bus_up == 0") == 1
    (tmp_path / RULES.name).write_text(
        text.replace("expr: collab_bus_up == 0", "expr: collab_bus_up == 1"), encoding="utf-8"
    )
    (tmp_path / TESTS.name).write_text(TESTS.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(PrometheusFailed, match="CollabBusIsDown"):
        promtool("test", "rules", TESTS.name, directory=tmp_path)


def test_each_alert_is_tested_and_explained_once() -> None:
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)
    tested, of_weeks = (
        [
            test["alertname"]
            for group in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]
            for test in group["alert_rule_test"]
            if test["exp_alerts"]
        ]
        for file in (TESTS, OF_WEEKS)
    )
    assert of_weeks == [name for name in names if name in of_weeks] != []
    assert tested == [name for name in names if name not in of_weeks]
    explained = re.findall(r"^\| `(Collab\w+)` \|", OPERATIONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert explained == names


def test_alerts_are_about_metrics_that_there_are_and_that_move() -> None:
    for rule in alerts():
        assert rule.keys() - {"for"} == {"alert", "expr", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("critical", "warning")
        check(rule["expr"])
        # The texts send people to other metrics.
        named = set(re.findall(r"\bcollab_\w+", rule["annotations"]["summary"]))
        assert named <= _BY_SERIES.keys(), rule
        for name, _ in selectors(rule["expr"]):
            assert re.sub(r"_(bucket|sum|count)$", "", name) in test_metrics.shown(), name


def test_the_dashboard_is_current_and_shows_every_metric() -> None:
    written = dashboard.DOCUMENT.read_text(encoding="utf-8")
    assert written == dashboard.render(), "stale: python -m tests.support.dashboard"
    shown: set[str] = set()
    for query in dashboard.queries():
        check(query)
        assert query.count(dashboard.NODES) == len(list(selectors(query))), query
        shown |= {re.sub(r"_(bucket|sum|count)$", "", name) for name, _ in selectors(query)}
    assert sorted(_BY_SERIES.keys() - shown) == [], "no panel shows these"


EVENTS = re.compile(r"refusals|limits|evictions|stream_|hook_|webhook|stays|http_answers|sandbox_|bus_|instructions")
"""Series that are not there, or have no value yet, before the first event of their kind."""


@pytest.mark.prometheus
@pytest.mark.server
@pytest.mark.slow
async def test_prometheus_answers_all_queries_from_a_server_that_works(tmp_path: Path) -> None:
    async with ServerProcess(tmp_path, "--metrics-port", "0", "--compact-rows", "1", "--tenants", "name") as server:
        await happens(lambda: "collab metrics on" in server.stdout, "the address of metrics")
        found = re.search(r"collab metrics on http://(\S+)/metrics", server.stdout)
        assert found is not None
        with prometheus(tmp_path, [found[1]], RULES) as url:
            async with (
                LiveClient(server.document_url("d")) as client,
                RawHocuspocus(server.hocuspocus_url) as other,
                aiohttp.ClientSession() as session,
            ):
                await client.until_synced()
                await other.join("d")

                async def ask(path: str, **query: str) -> Any:
                    async with session.get(f"{url}/api/v1/{path}", params=query) as answer:
                        told = await answer.json()
                        assert told["status"] == "success", (query, told)
                        return told["data"]

                async def scraped() -> bool:
                    client.text().insert(0, "x")
                    try:
                        rows = await ask("query", query="count_over_time(collab_updates_total[1m]) > 5")
                    except aiohttp.ClientError:
                        return False
                    return bool(rows["result"])

                await eventually(scraped, "some looks")
                empty = []
                for query in dashboard.queries():
                    text = query.replace("$__rate_interval", "1m").replace("$job", ".*").replace("$instance", ".*")
                    if not (await ask("query", query=text))["result"]:
                        empty.append(query)
                assert [query for query in empty if not EVENTS.search(query)] == []
                (group,) = (await ask("rules"))["groups"]
                assert len(group["rules"]) == len(alerts())
                states = {rule["name"]: (rule["health"], rule["state"]) for rule in group["rules"]}
                assert states == dict.fromkeys(states, ("ok", "inactive")), "nothing is wrong"
