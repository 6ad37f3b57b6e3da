"""`python -m deploy.compose`: write the secrets of the compose stack, once.

With STRIPE_WEBHOOK_SECRET in the environment that is the endpoint's, also later; without it, one is made up that only
`stripe-ingest send` knows to sign with.
"""

import os
import sys

from deploy.compose.credentials import FOLDER, written

new = written(FOLDER, os.environ)
sys.stdout.write(f"{FOLDER}: " + (f"wrote {', '.join(new)}\n" if new else "everything is there\n"))
