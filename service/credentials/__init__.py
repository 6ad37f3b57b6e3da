"""The signing secrets and API keys that are kept for the configuration's endpoints, in one file."""
