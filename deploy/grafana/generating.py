"""The dashboards as files: what lies in dashboards/ is what the code says, byte for byte."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from deploy.grafana.consumers import consumers
from deploy.grafana.overview import overview
from deploy.grafana.receiver import receiver
from deploy.grafana.stripe_accounts import stripe_accounts

FOLDER: Final = Path(__file__).parent / "dashboards"


def generated() -> Mapping[str, str]:
    """Each file's name and text."""
    dashboards = {
        "overview": overview(),
        "receiver": receiver(),
        "kafka-consumers": consumers(),
        "stripe-accounts": stripe_accounts(),
    }
    return {
        f"{name}.json": json.dumps(dashboard, cls=JSONEncoder, indent=2, ensure_ascii=False, sort_keys=True) + "\n"
        for name, dashboard in dashboards.items()
    }


def write(folder: Path = FOLDER) -> None:
    """Write them, and take away what is generated no more."""
    files = generated()
    folder.mkdir(parents=True, exist_ok=True)
    for stale in set(folder.glob("*.json")) - {folder / name for name in files}:
        stale.unlink()
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
