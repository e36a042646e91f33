"""What tests stand on: servers that misbehave, a real nginx, namespaces to break, and `timewait` as a process."""
