-- Takes from all buckets or from none. One key per bucket; per bucket three arguments: interval, depth and cost, in
-- sixteenths of a microsecond; the last argument says how: 'all' or nothing, 'some' as many as there are, or 'look'.
-- A bucket is the time when it will be full again, as a string, and expires then.
local time = redis.call('TIME')
local now = (time[1] - 1760000000) * 16000000 + time[2] * 16
local how = ARGV[#ARGV]
local stored = redis.call('MGET', unpack(KEYS))
local full, granted, worst, worst_at = {}, {}, 0, 0
for i, key in ipairs(KEYS) do
  local interval, depth, cost = tonumber(ARGV[i * 3 - 2]), tonumber(ARGV[i * 3 - 1]), tonumber(ARGV[i * 3])
  local arrival = full[key] or tonumber(stored[i] or '0')
  if arrival < now then arrival = now end
  if how == 'some' then
    cost = math.min(cost, math.max(0, math.floor((depth - (arrival - now)) / interval)))
  end
  local after = arrival + interval * cost
  local wait = after - now - depth
  if wait > 0 and wait > worst then worst, worst_at = wait, i end
  full[key], granted[i] = after, cost
end
if how == 'all' and worst_at > 0 then
  local arrival = tonumber(stored[worst_at] or '0')
  return {0, worst_at, math.ceil(worst / 16), math.ceil(math.max(0, arrival - now) / 16)}
end
local answer = {1}
for i, key in ipairs(KEYS) do
  if how ~= 'look' and granted[i] > 0 then
    redis.call('SET', key, string.format('%.0f', full[key]), 'PX', math.ceil((full[key] - now) / 16000) + 1)
  end
  answer[#answer + 1] = math.ceil((full[key] - now) / 16)
  if how == 'some' then answer[#answer + 1] = granted[i] end
end
return answer
