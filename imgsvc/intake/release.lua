-- Give one place back, unless its window is over: a newer one never gets it.
--
-- KEYS[1]  as in acquire.lua
-- ARGV[1]  the start of the window that the place was taken in
-- returns  1 or 0: whether it was given back
local stored = redis.call('HMGET', KEYS[1], 'start', 'used')
if stored[1] ~= ARGV[1] then
  return 0
end
if tonumber(stored[2]) > 1 then
  redis.call('HINCRBY', KEYS[1], 'used', -1)
else
  redis.call('DEL', KEYS[1]) -- the next upload begins a window of its own, as if nothing had been
end
return 1
