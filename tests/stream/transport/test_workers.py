"""The contract of the transport, with real Faust workers that are killed, stalled and stopped."""

from __future__ import annotations

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from stream.embedded import EmbeddedServer
from stream.transport.layout import group_key, stream_key
from tests.stream.transport.conftest import KEYS, PREFIX, Deployment, eventually

# What a worker that dies had processed since its last commit comes again: at most what it does in a commit
# interval (0.25 s here) and a read of 64 messages from each of the 4 partitions on top. The tests send no
# more than `_BURST` before they kill, so that this is a bound whatever the machine's speed.
_BURST = 400


def test_kill_restart_and_graceful_stop(deployment: Deployment) -> None:
    first = deployment.start("a")
    deployment.wait_until_assigned({"a": 4})
    deployment.send(300)
    deployment.wait_until_seen()
    deployment.wait_until_committed()
    deployment.send(_BURST)
    deployment.wait_until_seen(350)
    first.kill()
    deployment.send(200)

    # No loss, bounded redelivery: nothing that was committed comes again.
    second = deployment.start("b")
    deployment.wait_until_seen()
    assert deployment.redelivered() <= _BURST
    assert not {int(value) for name, _, value in deployment.seen() if name == "b"} & set(range(300))
    deployment.assert_order()

    # A graceful stop commits everything, and leaves the group at once.
    second.stop()
    assert deployment.members() == 0
    deployment.wait_until_committed()
    before = len(deployment.seen())

    # The table comes back exactly; its changelog holds one entry for each key.
    assert Counter(key for key, _ in deployment.changelog()) == Counter(KEYS)
    third = deployment.start("c")
    recovered = eventually(lambda: deployment.diary("recovered", "c"), "table recovered")
    assert recovered[0]["state"] == deployment.expected_state()
    deployment.send(10)
    deployment.wait_until_seen(before + 10)
    assert len(deployment.seen()) == before + 10
    third.stop()


def test_workers_join_leave_and_die(deployment: Deployment) -> None:
    a = deployment.start("a")
    deployment.wait_until_assigned({"a": 4})
    deployment.send(200)
    b = deployment.start("b")
    deployment.wait_until_assigned({"a": 2, "b": 2})
    deployment.send(200)
    deployment.wait_until_seen()

    left = time.monotonic()
    b.stop()
    deployment.send(200)
    deployment.wait_until_assigned({"a": 4})
    # Well within the session timeout of 2 s, which only a worker that dies makes the others wait for.
    assert time.monotonic() - left < 4
    deployment.wait_until_seen()

    a.kill()
    table = {key.decode(): value.decode() for key, value in deployment.changelog() if value}
    deployment.send(200)
    deployment.start("c")
    deployment.wait_until_assigned({"c": 4})
    assert deployment.diary("recovered", "c")[0]["state"] == table
    deployment.wait_until_seen()
    assert not deployment.missing()
    deployment.assert_order()
    assert {name for name, _, _ in deployment.seen()} == {"a", "b", "c"}


def test_stalled_worker_is_fenced(deployment: Deployment) -> None:
    # It commits only when it gives up its partitions: so it has something to commit when it wakes up.
    a = deployment.start("a", conf={"broker_commit_interval": 3600})
    deployment.wait_until_assigned({"a": 4})
    deployment.send(200)
    deployment.wait_until_seen(150)
    a.send_signal(signal.SIGSTOP)
    b = deployment.start("b")
    deployment.wait_until_assigned({"b": 4})
    deployment.send(100)
    deployment.wait_until_seen()
    deployment.wait_until_committed()

    # When it wakes up it must not take back what the new owner has committed.
    committed = deployment.committed()
    a.send_signal(signal.SIGCONT)
    deployment.wait_until_assigned({"a": 2, "b": 2})
    assert "commit refused" in a.log.read_text()
    assert deployment.committed() == committed
    deployment.send(100)
    deployment.wait_until_seen()
    b.stop()
    a.stop()
    deployment.wait_until_committed()


def test_a_worker_that_does_not_let_go_is_left_behind(deployment: Deployment) -> None:
    # It waits for messages that nobody acknowledges, and goes on sending heartbeats.
    deployment.start("a", "hold", conf={"stream_wait_empty": True})
    deployment.wait_until_assigned({"a": 4})
    deployment.send(50)
    deployment.wait_until_seen()
    deployment.start("b", conf={"broker_rebalance_timeout": 0.5})
    deployment.wait_until_assigned({"b": 4})
    eventually(
        lambda: {value for name, _, value in deployment.seen() if name == "b"} == set(deployment.sent),
        "everything processed by the other",
    )
    assert deployment.members() == 2


@pytest.mark.parametrize("shuffle", [False, True], ids=["in order", "out of order"])
def test_deferred_acknowledgements(deployment: Deployment, shuffle: bool) -> None:
    a = deployment.start("a", "deferred", shuffle=shuffle)
    deployment.wait_until_assigned({"a": 4})
    for _ in range(4):
        deployment.send(100)
        deployment.wait_until_seen(len(deployment.seen()) + 30)
    a.kill()
    b = deployment.start("b", "deferred", shuffle=shuffle)
    deployment.wait_until_seen()
    # What was written outside of the stream went to the partition of its key, one entry each.
    deployment.wait_until_committed()
    b.stop()
    assert Counter(key for key, _ in deployment.changelog()) == Counter(KEYS)
    if not shuffle:
        deployment.start("c", "deferred")
        recovered = eventually(lambda: deployment.diary("recovered", "c"), "table recovered")
        assert recovered[0]["state"] == deployment.expected_state()


def test_slow_processor_holds_back_the_reader(deployment: Deployment) -> None:
    deployment.send(1200)
    deployment.start("a", "slow", conf={"stream_buffer_maxsize": 20})
    deployment.wait_until_seen(600)
    # 4 partitions: a read of 64 each may be under way when the buffer of 20 fills up.
    assert deployment.diary("held", "a")[-1]["messages"] <= 20 + 4 * 64
    deployment.wait_until_seen()
    assert deployment.redelivered() == 0


def test_foreign_and_trimmed_messages(deployment: Deployment) -> None:
    a = deployment.start("a")
    deployment.wait_until_assigned({"a": 4})
    stream = stream_key(PREFIX, "source", 2)
    deployment.redis.xadd(stream, {"v": "bare"})
    deployment.redis.xadd(stream, {"k": "odd", "t": "soon", "h": "{", "more": "x", "v": "odd"})
    deployment.redis.xadd(stream, {"unrelated": "x"})
    deployment.wait_until_seen(3)
    assert [value for _, _, value in deployment.seen()] == [b"bare", b"odd", b"null"]
    a.stop()

    # Trimmed while nobody reads: the consumer goes on at the first that is left.
    deployment.send(100)
    kept = {}
    for partition in range(4):
        key = stream_key(PREFIX, "source", partition)
        deployment.redis.xtrim(key, maxlen=5, approximate=False)
        kept[partition] = [fields[b"v"] for _, fields in deployment.redis.xrange(key)]
    deployment.start("b")
    survivors = {value for values in kept.values() for value in values if value.isdigit()}
    eventually(
        lambda: {value for name, _, value in deployment.seen() if name == "b"} == survivors, "survivors seen"
    )


def test_server_restart(short_tmp: Path, tmp_path: Path) -> None:
    with EmbeddedServer(short_tmp, appendonly=True) as server:
        deployment = Deployment(server, tmp_path)
        try:
            deployment.start("a")
            deployment.wait_until_assigned({"a": 4})
            deployment.send(300)
            deployment.wait_until_seen(100)
            server.stop()
            server.start()
            deployment.send(300)
            deployment.wait_until_seen()
            # The script cache may also go without a restart.
            deployment.redis.script_flush()
            deployment.send(100)
            deployment.wait_until_seen()
            deployment.wait_until_committed()
            # No change of the table was lost.
            state = {key.decode(): value.decode() for key, value in deployment.changelog() if value}
            assert state == deployment.expected_state()
            assert len(deployment.changelog()) == len(KEYS)
        finally:
            deployment.close()


def test_data_of_the_server_is_lost(deployment: Deployment) -> None:
    deployment.start("a")
    deployment.wait_until_assigned({"a": 4})
    deployment.send(100)
    deployment.wait_until_seen()
    # As when a server without an append-only file restarts. The worker joins anew and goes on.
    registry = deployment.redis.hgetall(PREFIX + "topics")
    deployment.redis.flushall()
    deployment.redis.hset(PREFIX + "topics", mapping=registry)
    deployment.sent.clear()
    deployment.wait_until_assigned({"a": 4})
    deployment.send(100)
    deployment.wait_until_seen()
    deployment.wait_until_committed()
    assert deployment.redis.get(group_key(PREFIX, "contract", "assigned"))
