"""Whatever the earlier document is, it is compared or refused: nothing else happens."""

import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.contract.compatibility import NotTheContract, breaking_changes
from tests.support.published_contract import ASYNCAPI

STRANGE: st.SearchStrategy[Any] = st.sampled_from([
    None, True, 7, 1.5, "", "x", "#/components/schemas/Charge", [], [None], ["x"], {}, {"x": None}, {"x": {}},
    {"$ref": "#/components/schemas/Charge"}, {"$ref": "#/components/schemas/Nothing"}, {"anyOf": [{}]},
])  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_a_spoilt_document_is_compared_or_refused(data: st.DataObject) -> None:
    spoilt: Any = copy.deepcopy(ASYNCAPI)
    within = spoilt
    # Step by step, since most of the document's places are deep inside.
    while True:
        names = sorted(within) if isinstance(within, dict) else list(range(len(within)))
        name = data.draw(st.sampled_from(names))
        if not (isinstance(within[name], dict | list) and within[name]) or data.draw(st.integers(0, 3)) == 0:
            break
        within = within[name]
    within[name] = data.draw(STRANGE)

    try:
        changes = breaking_changes(spoilt, ASYNCAPI)
    except NotTheContract as refused:
        changes = [str(refused)]
    assert not [change for change in changes if "\n" in change]
