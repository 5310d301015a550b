-- Take slots in a user's window, unless that would exceed the limit.
--
-- KEYS[1]  a hash: `start` of the window, in microseconds since 1970 by this server's clock, and the slots `used`
-- ARGV     the limit, the length of the window in microseconds, and the number of slots (0: only read)
-- returns  {1 or 0: whether they were taken, slots used, start}
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local limit, window, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])

local stored = redis.call('HMGET', KEYS[1], 'start', 'used')
local start, used = tonumber(stored[1]), tonumber(stored[2])
if not start or not used or start > now or now >= start + window then
  start, used = now, 0 -- the window has ended, or starts in the future: the clock was set back
end
if wanted == 0 or used + wanted > limit then
  return {0, used, start}
end
used = used + wanted
redis.call('HSET', KEYS[1], 'start', string.format('%.0f', start), 'used', used)
redis.call('PEXPIREAT', KEYS[1], string.format('%.0f', math.ceil((start + window) / 1000)))
return {1, used, start}
