"""What Alertmanager silences: what comes of something worse, and never both of two."""

import re
from itertools import combinations

import yaml

from deploy.prometheus.alertmanager import FILE, alerts, configuration, silenced
from tests.support.alert_rules import alerts as rules


def test_the_example_is_what_the_runbooks_say() -> None:
    assert FILE.read_text("utf-8") == configuration()


def test_of_two_alerts_one_at_most_silences_the_other_and_never_a_worse_one() -> None:
    known = alerts()
    silences = {(cause.name, name) for cause in known.values() for name in silenced(cause, known)}

    assert known.keys() == rules().keys()
    assert len(silences) > 100
    for one, other in combinations(known, 2):
        assert not {(one, other), (other, one)} <= silences
    # In one order of all there is no circle either: of whatever fires, the first is heard.
    assert all(known[cause].rank < known[name].rank for cause, name in silences)
    assert not any(known[cause].severity == "info" and known[name].severity != "info" for cause, name in silences)


def test_what_one_endpoint_or_process_causes_silences_nothing_that_is_not_its_own() -> None:
    """Also what somebody has silenced silences others: a test account that is quiet for good must not hide the shop."""
    known = alerts()
    for rule in yaml.safe_load(configuration())["inhibit_rules"]:
        (cause,) = re.findall(r"\w*StripeIngest\w+", rule["source_matchers"][0])
        assert known[cause].subjects == set(rule.get("equal", ())), cause


def test_the_watchdog_is_told_of_as_often_as_it_says() -> None:
    """Alertmanager looks whether to repeat once in a group_interval, which is minutes unless a route has its own."""
    routes = yaml.safe_load(configuration())["route"]["routes"]
    (watchdog,) = (route for route in routes if route["receiver"] == "dead-man")
    assert routes.index(watchdog) == 0
    assert watchdog["group_interval"] == "1m"
    assert watchdog["repeat_interval"] == "50s"  # below, or every second look would come a moment too early


def test_only_alerts_of_the_same_endpoint_or_projection_are_silenced() -> None:
    for rule in yaml.safe_load(configuration())["inhibit_rules"]:
        (source,) = rule["source_matchers"]
        (target,) = rule["target_matchers"]
        cause, names = re.findall(r"\w*StripeIngest\w+", source)[0], re.findall(r"StripeIngest\w+", target)
        for label in ("endpoint", "projection"):
            both = all(f"$labels.{label}" in rules()[name].annotations["description"] for name in (cause, *names))
            assert (label in rule.get("equal", ())) == both, (cause, names, label)
