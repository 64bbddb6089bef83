"""Reaching a cluster with TLS and a password: what its URL says, and the whole line behind such a door."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from faust.transport.drivers.aiokafka import credentials_to_aiokafka_auth

from models.session import Session
from stream.kafka.access import access_of
from stream.offline import run as analysed
from stream.settings import BrokerError, is_kafka
from tests.command_line import assert_refused, run
from tests.stream.kafka.door import PASSWORD, USER, Door
from tests.stream.kafka.test_worker import kafka_ward, publish_on_kafka
from tests.stream.test_worker import RECOVERS, assert_same, collect, feed, has_all_of, interleaved, patient


def test_how_a_cluster_is_named() -> None:
    assert access_of("kafka://a").servers == ("a:9092",)
    assert access_of("kafka://a:1;b;kafka://c:3").servers == ("a:1", "b:9092", "c:3")
    assert access_of("kafkas://a;b:1").servers == ("a:9093", "b:1")
    assert access_of("kafka://u:p@a:1;b").faust_url == "kafka://a:1;kafka://b:9092"
    assert is_kafka("kafkas://a")
    for wrong in ("kafka://", "kafka://a/b", "redis://a"):
        with pytest.raises(BrokerError, match="kafka://HOST:PORT"):
            access_of(wrong)


@pytest.mark.parametrize(
    ("url", "protocol", "mechanism"),
    [
        ("kafka://a", "PLAINTEXT", None),
        ("kafkas://a", "SSL", None),
        ("kafka://me:my%40word@a", "SASL_PLAINTEXT", "SCRAM-SHA-512"),
        ("kafkas://me:my%40word@a;b?sasl_mechanism=SCRAM-SHA-256", "SASL_SSL", "SCRAM-SHA-256"),
        ("kafkas://me:my%40word@a?sasl_mechanism=PLAIN", "SASL_SSL", "PLAIN"),
    ],
)
def test_clients_and_faust_get_the_same(url: str, protocol: str, mechanism: str | None) -> None:
    access = access_of(url)
    options = access.client_options
    assert options["security_protocol"] == protocol
    of_faust = credentials_to_aiokafka_auth(access.faust_credentials)
    wanted = {name: value for name, value in options.items() if name != "bootstrap_servers"}
    assert {name: value for name, value in wanted.items() if value is not None} == {
        name: value for name, value in of_faust.items() if value is not None
    }
    assert options.get("sasl_mechanism") == mechanism
    if mechanism:
        assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("me", "my@word")
        assert "word" not in repr(access)
    if options["ssl_context"]:
        assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
        assert options["ssl_context"].check_hostname


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("kafka://me:hidden@a?sasl_mechanism=PLAIN", "in the clear"),
        ("kafkas://me:hidden@a?sasl_mechanism=GSSAPI", "is one of"),
        ("kafkas://me@a", "USER:PASSWORD"),
        ("kafkas://:hidden@a", "USER:PASSWORD"),
        ("kafkas://a?sasl_mechanism=PLAIN", "USER:PASSWORD"),
        ("kafka://me:hidden@a?ssl_ca_certs=x", "needs TLS"),
        ("kafkas://me:hidden@a?ssl_ca_cert=x", "no option ssl_ca_cert"),
        ("kafkas://me:hidden@a?ssl_ca_certs=/nowhere", "cannot read its certificates"),
    ],
)
def test_what_makes_no_sense_is_refused_without_the_password(url: str, why: str) -> None:
    with pytest.raises(BrokerError, match=why) as refused:
        access_of(url)
    assert "hidden" not in str(refused.value)


def url_of(door: Door, password: str = PASSWORD, authority: Path | None = None) -> str:
    options = urlencode({"ssl_ca_certs": authority or door.authority, "sasl_mechanism": "PLAIN"})
    return f"kafkas://{USER}:{quote(password)}@127.0.0.1:{door.port}?{options}"


def test_whoever_does_not_know_the_door_is_told_so_in_one_line(guarded_kafka: Door) -> None:
    known = run("topics", "list", BEDSIDE_BROKER_URL=url_of(guarded_kafka))
    assert_refused(known, "there are no topics yet")
    assert guarded_kafka.let_in
    for url in (
        url_of(guarded_kafka, "another hidden word"),
        f"kafka://127.0.0.1:{guarded_kafka.port}",
        f"kafkas://127.0.0.1:{guarded_kafka.port}",
    ):
        before = guarded_kafka.let_in
        refused = run("topics", "list", BEDSIDE_BROKER_URL=url)
        assert_refused(refused, "cannot use the Kafka broker at")
        assert "hidden" not in refused.stdout + refused.stderr
        assert guarded_kafka.let_in == before


@pytest.mark.slow
def test_worker_bridge_and_feed_go_through_the_door(
    guarded_kafka: Door,
    monkeypatch: pytest.MonkeyPatch,
    short_tmp: Path,
    shipped: Session,
) -> None:
    monkeypatch.setenv("BEDSIDE_PREFIX", "guarded:")
    feeds = [feed(f"bed-{seed}", patient(seed, RECOVERS, 60.0)) for seed in range(2)]
    expected = analysed(interleaved(feeds), shipped)
    url = url_of(guarded_kafka)

    async def main() -> None:
        async with kafka_ward(short_tmp, url, "guarded:") as (ward, bus):
            await publish_on_kafka(url, "guarded:", interleaved(feeds))
            assert_same(await collect(bus, has_all_of(expected)), expected)
            for name in ("worker", "bridge"):
                assert "hidden" not in ward.log(name)

    asyncio.run(main())
