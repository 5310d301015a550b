-- Release one slot, unless its window has ended: it is never released in a newer window.
--
-- KEYS[1]  as in acquire.lua
-- ARGV[1]  the start of the window in which the slot was taken
-- returns  1 or 0: whether it was released
local stored = redis.call('HMGET', KEYS[1], 'start', 'used')
if stored[1] ~= ARGV[1] then
  return 0
end
if tonumber(stored[2]) > 1 then
  redis.call('HINCRBY', KEYS[1], 'used', -1)
else
  redis.call('DEL', KEYS[1]) -- the next upload begins a new window
end
return 1
