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
    silences = {
        (cause.name, name) for cause in known.values() for names in silenced(cause, known).values() for name in names
    }

    assert known.keys() == rules().keys()
    assert len(silences) > 100
    for one, other in combinations(known, 2):
        assert not {(one, other), (other, one)} <= silences
    # In one order of all there is no circle either: of whatever fires, the first is heard.
    assert all(known[cause].rank < known[name].rank for cause, name in silences)
    assert not any(known[cause].severity == "info" and known[name].severity != "info" for cause, name in silences)


def test_only_alerts_of_the_same_endpoint_or_projection_are_silenced() -> None:
    for rule in yaml.safe_load(configuration())["inhibit_rules"]:
        (source,) = rule["source_matchers"]
        (target,) = rule["target_matchers"]
        cause, names = re.findall(r"\w*StripeIngest\w+", source)[0], re.findall(r"StripeIngest\w+", target)
        for label in ("endpoint", "projection"):
            both = all(f"$labels.{label}" in rules()[name].annotations["description"] for name in (cause, *names))
            assert (label in rule.get("equal", ())) == both, (cause, names, label)
