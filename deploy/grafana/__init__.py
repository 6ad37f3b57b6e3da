"""The dashboards: written here, generated as JSON for Grafana 11.6 and newer by `python -m deploy.grafana`."""
