"""The embedded engine: a process per core, an epoll loop in each; nothing to install."""
