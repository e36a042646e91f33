"""What the kernel says: socks through sock_diag, counters and limits from /proc. Everything here only reads."""
