"""The lab: nodes as network namespaces on a bridge, on any kernel that has ip_vs.

`places` says where things are, `wire` and `guest` are the two ends of the line into the kernel,
`uml` and `boot` bring one up, `net` and `processes` furnish it, `scenario` tells stories in it.
Nothing here is part of the wheel, and nothing here imports the code under test but scenarios.
"""
