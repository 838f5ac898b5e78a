"""`make bench` and `make soak`: what the proxy and the engine cost, beside peers."""
