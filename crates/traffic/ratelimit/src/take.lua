-- Takes from all buckets or from none. One key per bucket; per bucket three arguments: interval, depth and cost, in
-- sixteenths of a microsecond; the last argument says how: 'all' or nothing, 'some' as many as there are, 'look', or
-- 'reserve', as 'all' with one bucket that remembers, so that tokens can be given back.
local how = ARGV[#ARGV]
local stored = redis.call('MGET', unpack(KEYS))
local full, histories, granted, worst, worst_at, at = {}, {}, {}, 0, 0, 0
for i, key in ipairs(KEYS) do
  local interval, depth, cost = tonumber(ARGV[i * 3 - 2]), tonumber(ARGV[i * 3 - 1]), tonumber(ARGV[i * 3])
  local arrival, history = full[key], histories[key]
  if not arrival then arrival, history = read(stored[i]) end
  if how == 'some' then
    cost = math.min(cost, math.max(0, math.floor((depth - (arrival - now)) / interval)))
  elseif how == 'reserve' and not history then
    history = {now, arrival, math.max(1, math.floor(depth / 32))}
  end
  local after = arrival + interval * cost
  local wait = after - now - depth
  if wait > 0 and wait > worst then worst, worst_at = wait, i end
  if history then at = note(history, interval * cost) end
  full[key], histories[key], granted[i] = after, history, cost
end
if worst_at > 0 and (how == 'all' or how == 'reserve') then
  return {0, worst_at, math.ceil(worst / 16), math.ceil((read(stored[worst_at]) - now) / 16)}
end
local answer = {1}
for i, key in ipairs(KEYS) do
  if how ~= 'look' and granted[i] > 0 then write(key, full[key], histories[key]) end
  answer[#answer + 1] = math.ceil((full[key] - now) / 16)
  if how == 'some' then answer[#answer + 1] = granted[i] end
end
if how == 'reserve' then answer[#answer + 1] = at end
return answer
