"""The HTTP/1.1 proxy of the embedded engine: what moves messages that `balancer/http` understands."""
