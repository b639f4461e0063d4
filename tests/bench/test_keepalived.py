"""keepalived's configuration says what the comparison needs."""

from __future__ import annotations

from bench.keepalived import Checks, Task, configuration

TASK = Task("10.0.1.10", 6443, "eth0", ("10.0.1.16", "10.0.1.19"))


def lines(checks: Checks) -> list[str]:
    return [line.strip() for line in configuration(TASK, checks).splitlines()]


def test_every_real_server_is_checked_over_tls() -> None:
    said = lines(Checks(delay_loop=1.0, connect_timeout=1.0))
    assert "virtual_server 10.0.1.10 6443 {" in said
    assert said.count("SSL_GET {") == 2
    assert said.count("path /readyz") == said.count("status_code 200") == 2
    assert "real_server 10.0.1.16 6443 {" in said
    assert "real_server 10.0.1.19 6443 {" in said


def test_spans_are_in_seconds_with_fractions() -> None:
    said = lines(Checks(delay_loop=0.2, connect_timeout=0.3, delay_before_retry=0.05))
    assert {"delay_loop 0.2", "connect_timeout 0.3", "delay_before_retry 0.05"} <= set(said)


def test_it_schedules_and_forwards_as_revip_does() -> None:
    said = lines(Checks(delay_loop=1.0, connect_timeout=1.0))
    assert {"lvs_sched mh", "mh-port", "mh-fallback", "lvs_method DR"} <= set(said)


def test_its_vrrp_instance_has_the_address() -> None:
    said = lines(Checks(delay_loop=1.0, connect_timeout=1.0))
    assert "10.0.1.10/32 dev eth0" in said
    assert "priority 255" in said


def test_connections_of_a_server_that_is_down_go_on_only_if_asked() -> None:
    assert "inhibit_on_failure" not in lines(Checks(1.0, 1.0))
    assert "inhibit_on_failure" in lines(Checks(1.0, 1.0, inhibit_on_failure=True))


def test_its_braces_match() -> None:
    text = configuration(TASK, Checks(1.0, 1.0))
    assert text.count("{") == text.count("}")
