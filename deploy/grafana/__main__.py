"""`python -m deploy.grafana`: write the dashboards anew."""

from deploy.grafana.generating import write

write()
