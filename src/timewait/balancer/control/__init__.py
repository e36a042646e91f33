"""The admin API: HTTP and JSON on a unix socket (`door`, `api`), who asks it (`client`), Prometheus (`metrics`)."""
