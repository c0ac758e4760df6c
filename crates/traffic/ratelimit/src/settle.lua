-- Settles what was reserved from a bucket. The second key says that it has been done, for a call that is sent twice.
-- Arguments: when it was reserved, how much comes back, and how much was used beyond it.
local at, back, beyond = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local full, history = read(redis.call('GET', KEYS[1]))
if (back > 0 or beyond > 0) and redis.call('SET', KEYS[2], '', 'NX', 'PX', 60000) then
  if beyond > 0 then
    -- No further than whole numbers go.
    full = math.min(full + beyond, 2 ^ 53 - 1)
    if history then note(history, beyond) end
  elseif history and at >= history[1] then
    for bin = #history - 2, 4, -3 do
      if history[bin] <= at then
        history[bin + 2] = math.max(0, history[bin + 2] - back)
        local again = history[2]
        for i = 4, #history, 3 do again = math.max(again, history[i + 1]) + history[i + 2] end
        full = math.min(full, again)
        break
      end
    end
  end
  if full > now then write(KEYS[1], full, history) else full = now; redis.call('DEL', KEYS[1]) end
end
return math.ceil((full - now) / 16)
