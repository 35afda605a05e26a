"""A service that answers over HTTP and WebSocket with trained models; see docs/serving.md."""
