"""The load engine on the kernel's own sockets: one process per core, one epoll loop each."""
