"""What `config init` writes: every setting there is, commented."""

from typing import Final

INITIAL_CONFIGURATION: Final = """\
# stripe-ingest. Every value can be overridden by STRIPE_INGEST__SECTION__KEY; secrets also come from files (…_file).

[receiver]
# host = "0.0.0.0"
# port = 8080
# workers = 1                       # processes that share the port
# max_body_bytes = 1048576
# max_in_flight = 256
# answer_timeout_seconds = 8.0      # from the request to its answer, whatever Kafka does
# tolerance_seconds = 300           # how old, or how far in the future, a signature may be
# allow_ips = "any"                 # or "stripe", or addresses and networks: ["10.0.0.0/8"]
# public_url = "https://hooks.example.com"      # where Stripe reaches it; for `endpoints apply`

[admin]
# host = "127.0.0.1"
# port = 9090                       # /metrics, /livez, /readyz and the operator's page; never the public port
# token_file = "/run/secrets/admin-token"       # to sign in with (`openssl rand -hex 32`): for the page's data from
#                                   # elsewhere than this machine, and for replaying from it
# allowed_hosts = ["ingest.internal.example.com"]   # names that the page is asked by, besides localhost

[kafka]
bootstrap_servers = "127.0.0.1:9092"
# topic_prefix = "stripe"
# include_raw = true                # keep Stripe's event beside the normalized one
# redact = ["customer.email", "hash:customer.phone", "charge.billing_details", "*.metadata.ssn"]
#                                   # fields that go nowhere: dropped, or replaced by a keyed hash to join on
#                                   # (of objects the values; names stay: drop metadata that has people in its keys)
# redact_key_file = "/run/secrets/redact-key"   # needed with redact: `openssl rand -base64 32`; older keys in more
#                                   # lines below it open what they have sealed
# partitions = 6                    # for `topics apply`
# replication_factor = 3
# min_insync_replicas = 2
# security = { protocol = "SASL_SSL", sasl_mechanism = "SCRAM-SHA-512", username = "…", password_file = "…" }

[database]
url_file = "/run/secrets/database-url"      # postgresql://user:password@host:5432/name

[dedupe]
# url = "postgresql://…"            # the database unless said otherwise; "memory://" for a single process;
#                                   # "redis://:password@host:6379/0" (or rediss://): pip install "stripe-ingest[redis]"
# timeout_seconds = 0.1
# retention_days = 31               # Stripe's CLI can resend an event for 30
# on_error = "publish"              # or "refuse": answer 503 while the store is away

[consumer]
# dead_letter_limit = 100           # poison in a row at which a partition stops; a tenth before anything was applied

[reconcile]
# interval_seconds = 900            # how often receivers look for what was missed; 0: only `reconcile`, on demand
# lookback_hours = 24
# grace_seconds = 900               # younger events are Stripe's to deliver
# api_key_file = "/run/secrets/stripe-events-key"   # may read events; where the endpoints' own keys may not

[stripe]
# requests_per_second = 20.0        # by one key; Stripe allows 100 in live mode, 25 in test mode, to all of yours
# api_base = "https://api.stripe.com"
# watch_interval_seconds = 900      # how often receivers with a key look at the endpoints at Stripe; 0: only when asked

[secrets]
# store = "/var/lib/stripe-ingest/secrets.json" # signing secrets and API keys that are not in this file; 0600
# key_file = "/run/secrets/store-key"           # encrypts the store: `stripe-ingest secrets key`; older keys below it

[event_log]
# retention_days = 7                # what came and what became of it, for the operator's page; 0: nothing is kept

[tracing]
# otlp_endpoint = "http://127.0.0.1:4318"       # OpenTelemetry spans: pip install "stripe-ingest[otel]"
# sample_ratio = 1.0

[[endpoints]]
name = "shop"                       # => POST /webhooks/shop
mode = "live"                       # live, test or any
secrets_file = "/run/secrets/stripe-webhook-secret"   # whsec_…, several while one is being rolled
# path = "/api/v1/webhook"          # where the URL is registered at Stripe already
# account = "acct_…"
# connect = false
# events = ["payment_intent.succeeded", "charge.refunded"]   # what it is registered for at Stripe
# api_key_file = "/run/secrets/stripe-api-key"   # sk_… or rk_…; for Stripe's API, never for receiving
# api_version = "2026-10-28.endive" # what `endpoints apply` registers it with; Stripe never changes it afterwards
# url = "https://shop.example.com/hook"          # where that is not receiver.public_url and the path
# permissions = ["payment_intent_write"]         # what else the key is there for; `keys check` looks
"""
