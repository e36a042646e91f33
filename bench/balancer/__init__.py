"""The balancer beside HAProxy and nginx: client, balancer and server in namespaces of their own, joined by veth."""
