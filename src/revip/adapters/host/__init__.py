"""Links, addresses, routes, rules, sysctls, packet filter of the network namespace we run in.

`LinuxHost` is the port; each other module knows one interface of the kernel.  Nothing foreign is
changed: routes and rules carry our protocol number, the dummy link and the packet-filter chain
have our name, and a sysctl is put back only while it still has the value we gave it.
"""

from revip.adapters.host.linux import LinuxHost

__all__ = ["LinuxHost"]
