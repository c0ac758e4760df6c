-- A bucket is the time when it will be full again, in sixteenths of a microsecond, and expires then. While tokens may be
-- given back, its history follows (history.rs says what for): when that began, when it would be full by what is no longer
-- kept apart, how wide a bin is, and three numbers per bin: its first grant, its last, and how much they come to.
local time = redis.call('TIME')
local now = (time[1] - 1760000000) * 16000000 + time[2] * 16

-- When it will be full, and its history if it has one. Both end when it is.
local function read(stored)
  local full, history = tonumber(stored or '0'), nil
  if not full then
    history = {}
    for number in string.gmatch(stored, '%d+') do history[#history + 1] = tonumber(number) end
    full = table.remove(history, 1)
  end
  if full < now then return now, nil end
  return full, history
end

local function write(key, full, history)
  local value = string.format('%.0f', full)
  if history then
    local numbers = {value}
    for i, number in ipairs(history) do numbers[i + 1] = string.format('%.0f', number) end
    value = table.concat(numbers, ' ')
  end
  redis.call('SET', key, value, 'PX', math.ceil((full - now) / 16000) + 1)
end

-- Notes what is granted now, and answers with the time it is noted under, which nothing else in the history has.
local function note(history, amount)
  local bin, at = #history - 2, now
  if bin > 3 then at = math.max(now, history[bin + 1] + 1) end
  if bin > 3 and at < history[bin] + history[3] then
    history[bin + 1], history[bin + 2] = at, history[bin + 2] + amount
    return at
  end
  for _, number in ipairs({at, at, amount}) do history[#history + 1] = number end
  if #history > 3 + 3 * 64 then
    history[2] = math.max(history[2], history[5]) + history[6]
    for _ = 1, 3 do table.remove(history, 4) end
  end
  return at
end

