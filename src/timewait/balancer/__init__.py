"""The load balancer: CLB's layer 4 and layer 7, on three engines."""
