"""What the compose stack is configured with: the service's configuration files, and its secrets as files."""
