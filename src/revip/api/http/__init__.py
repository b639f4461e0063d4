"""The HTTP endpoint: it only tells; nothing on this node can be changed by it."""
