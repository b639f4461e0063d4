"""revip: the virtual IP and load balancer that heals itself, for Kubernetes control planes."""

__version__ = "0.1.0"
