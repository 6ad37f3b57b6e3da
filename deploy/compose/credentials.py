"""The secrets of the compose stack, made up on this machine: a file each, as compose mounts them."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "secrets"


def written(folder: Path, environment: Mapping[str, str]) -> list[str]:
    """Write the secrets that are not there yet, and return their names; what is there stays.

    Only the endpoint's is written anew where the environment has another: it is Stripe's to say.

    The folder keeps other people of this machine out (0700). The files in it can be read by everybody (0444), since the
    users of the containers, who are no users of this machine, read them where they are mounted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    password = _kept(folder / "postgres-password") or secrets.token_hex(24)
    given = environment.get("STRIPE_WEBHOOK_SECRET")
    values = {
        "postgres-password": password,
        "database-url": f"postgresql://stripe_ingest:{password}@postgres:5432/stripe_ingest",
        "stripe-webhook-secret": given or f"whsec_{secrets.token_hex(24)}",
        "admin-token": secrets.token_hex(32),
        "grafana-admin-password": secrets.token_hex(16),
    }
    new = [name for name in values if not (folder / name).exists()]
    if given and _kept(folder / "stripe-webhook-secret") not in {None, given}:
        new.append("stripe-webhook-secret")
    for name in new:
        (folder / name).unlink(missing_ok=True)  # nobody, its owner included, may write to it
        (folder / name).write_text(values[name], encoding="utf-8")
        (folder / name).chmod(0o444)
    return new


def _kept(file: Path) -> str | None:
    return file.read_text("utf-8").strip() if file.exists() else None
