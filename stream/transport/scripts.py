"""The Lua scripts: what must happen in the server in one step.

Their keys lie in several slots of a Redis Cluster, which is therefore not supported.
"""

from __future__ import annotations

from collections.abc import Sequence

from stream.transport.layout import ONCE_TTL_MS, index_key, tombstones_key

# What Kafka allows a reader to be behind before it may miss that a key was deleted (delete.retention.ms).
_TOMBSTONE_TTL_MS = 24 * 3600 * 1000

# Append a message to a compacted topic and remove the entry that it replaces; and publish a message with an
# idempotency key once. Flags say which of the two is wanted (or both).
#
# KEYS: stream, index, tombstones, once, assigned (the generation that may write)
# ARGV: "1" if compacted, time (ms) to remember the idempotency key ("0": none), time (ms) to keep
#       tombstones, message key, "1" if tombstone, generation of the writer ("": any may write), then the
#       arguments of XADD after the key
# Returns the id, and 1 if the message is new; 0-0 and -1 if others have the writer's partitions by now.
#
# A tombstone is purged when the next message arrives after its time, so the newest entry always stays:
# a worker that restores a table reads until it has seen that one.
PUBLISH = """
local compacted, remember, keep = ARGV[1] == '1', tonumber(ARGV[2]), tonumber(ARGV[3])
if remember > 0 then
    local first = redis.call('GET', KEYS[4])
    if first then return {first, 0} end
end
if ARGV[6] ~= '' then
    local writer = redis.call('GET', KEYS[5])
    if writer and writer ~= ARGV[6] then return {'0-0', -1} end
end
local id = redis.call('XADD', KEYS[1], unpack(ARGV, 7))
if compacted then
    local key = ARGV[4]
    local replaced = redis.call('HGET', KEYS[2], key)
    if replaced then redis.call('XDEL', KEYS[1], replaced) end
    redis.call('HSET', KEYS[2], key, id)
    local now = tonumber(string.match(id, '^%d+'))
    if ARGV[5] == '1' then
        redis.call('ZADD', KEYS[3], now, key)
    else
        redis.call('ZREM', KEYS[3], key)
    end
    for _, old in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now - keep, 'LIMIT', 0, 16)) do
        local tombstone = redis.call('HGET', KEYS[2], old)
        if tombstone then redis.call('XDEL', KEYS[1], tombstone) end
        redis.call('HDEL', KEYS[2], old)
        redis.call('ZREM', KEYS[3], old)
    end
end
if remember > 0 then redis.call('SET', KEYS[4], id, 'PX', remember) end
return {id, 1}
"""


def publish_call(
    stream: str,
    xadd: Sequence[bytes | str | int],
    *,
    key: bytes | None = None,
    compact: bool = False,
    is_tombstone: bool = False,
    once: bytes | None = None,
    fence: tuple[str, int] | None = None,
) -> tuple[list[bytes | str], list[bytes | str | int]]:
    """Return keys and arguments of `PUBLISH`.

    Parameters
    ----------
    stream : str
    xadd : sequence
        Arguments of XADD after the stream's key.
    key : bytes, optional
        Of the message; needed where the topic is compacted.
    compact, is_tombstone : bool
    once : bytes, optional
        Redis key that remembers the message; None: it may be published again.
    fence : tuple of (str, int), optional
        Redis key of the generation that may write, and that of the writer; None: any may.
    """
    # In place of a key that is not needed stands one that whoever may write the stream may use.
    keys = [stream, index_key(stream), tombstones_key(stream), once or stream, fence[0] if fence else stream]
    remember = 0 if once is None else ONCE_TTL_MS
    generation = fence[1] if fence else ""
    return keys, [int(compact), remember, _TOMBSTONE_TTL_MS, key or b"", int(is_tombstone), generation, *xadd]


# Membership of a consumer group. The server's clock decides who is alive. A change of who is in the group,
# or of what a member subscribes to, starts a new generation. Generations are times (ms) so that none ever
# returns, even when the server has lost its data.
_MEMBERSHIP = """
local members, leader, generation, subscriptions, view = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function new_generation()
    local last = tonumber(redis.call('GET', generation) or '0')
    local next = string.format('%.0f', math.max(last + 1, now))
    redis.call('SET', generation, next)
    return next
end

local function settle()
    for _, dead in ipairs(redis.call('ZRANGEBYSCORE', members, '-inf', now)) do
        redis.call('ZREM', members, dead)
        redis.call('HDEL', subscriptions, dead)
    end
    local parts = {}
    local alive = redis.call('ZRANGE', members, 0, -1)
    table.sort(alive)
    for _, member in ipairs(alive) do
        parts[#parts + 1] = member .. '=' .. (redis.call('HGET', subscriptions, member) or '')
    end
    local seen = redis.sha1hex(table.concat(parts, '\\n'))
    if seen ~= redis.call('GET', view) then
        redis.call('SET', view, seen)
        return new_generation(), alive
    end
    return redis.call('GET', generation) or new_generation(), alive
end
"""

# KEYS: members, leader, generation, subscriptions, view
# ARGV: member, session timeout (ms), subscription, "1" if it may lead
# Returns the generation, 1 if this member leads, and the members alive.
#
# A member that still clings to the partitions of the last generation does not lead, or all would wait for it.
HEARTBEAT = (
    _MEMBERSHIP
    + """
local member, ttl = ARGV[1], tonumber(ARGV[2])
redis.call('ZADD', members, now + ttl, member)
redis.call('HSET', subscriptions, member, ARGV[3])
local current, alive = settle()
local led_by = redis.call('GET', leader)
if ARGV[4] ~= '1' then
    if led_by == member then redis.call('DEL', leader) end
elseif not led_by or led_by == member or not redis.call('ZSCORE', members, led_by) then
    redis.call('SET', leader, member, 'PX', ttl)
end
return {current, redis.call('GET', leader) == member and 1 or 0, alive}
"""
)

# KEYS as for HEARTBEAT; ARGV: member
LEAVE = (
    _MEMBERSHIP
    + """
redis.call('ZREM', members, ARGV[1])
redis.call('HDEL', subscriptions, ARGV[1])
if redis.call('GET', leader) == ARGV[1] then redis.call('DEL', leader) end
settle()
"""
)

# A member that joined too late to be given partitions asks for another round.
# KEYS as for HEARTBEAT; ARGV: the generation that left it out
REJOIN = (
    _MEMBERSHIP
    + """
if redis.call('GET', generation) == ARGV[1] then new_generation() end
"""
)

# The leader hands out partitions; from here on only this generation may commit.
# KEYS: generation, leader, sync, assigned
# ARGV: generation, member, time (ms) to keep the assignments, then member and assignment in turn
# Returns 0 if the group has moved on or is led by another.
ASSIGN = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('GET', KEYS[2]) ~= ARGV[2] then return 0 end
if redis.call('GET', KEYS[4]) == ARGV[1] then return 0 end
redis.call('HSET', KEYS[3], unpack(ARGV, 4))
redis.call('PEXPIRE', KEYS[3], ARGV[3])
redis.call('SET', KEYS[4], ARGV[1])
return 1
"""

# Commit positions, unless partitions have been handed out anew since. While a rebalance is only being
# prepared the old owners may still commit: nobody else reads their partitions yet.
# KEYS: assigned, then streams; ARGV: generation, group, then one id for each stream
COMMIT = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
    local done = redis.pcall('XGROUP', 'SETID', KEYS[i], ARGV[2], ARGV[i + 1])
    if done['err'] then
        redis.call('XGROUP', 'CREATE', KEYS[i], ARGV[2], ARGV[i + 1], 'MKSTREAM')
    end
end
return 1
"""
