"""What is uploaded to a host: scripts of provisioning, the supervisor, templates of units."""
