"""HTTP: /metrics, /health, /ready and a read-only console. Takes plain callables and knows nothing of the proxy."""
