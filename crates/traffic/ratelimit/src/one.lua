-- What nearly every call is: takes from one bucket, which remembers nothing, or does not. The arguments are how much that is
-- and how deep the bucket is, in sixteenths of a microsecond. Answers with the debt; with the debt and how long to wait, if
-- it is refused; or with nothing, for a bucket with a history, which take.lua knows of.
local time = redis.call('TIME')
local now = (time[1] - 1760000000) * 16000000 + time[2] * 16
local full = now
local stored = redis.call('GET', KEYS[1])
if stored then
  full = tonumber(stored)
  if not full then return false end
  if full < now then full = now end
end
local after = full + ARGV[1]
local debt = after - now
local wait = debt - ARGV[2]
if wait > 0 then return {full - now, wait} end
-- Redis writes whole numbers as they are.
redis.call('SET', KEYS[1], after, 'PX', math.ceil(debt / 16000) + 1)
return debt
