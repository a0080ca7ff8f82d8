"""The event loop of a node and its sockets: see README.md."""
