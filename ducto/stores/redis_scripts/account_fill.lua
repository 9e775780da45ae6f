-- Keeps what was loaded for an account, unless somebody has written to the account since the loading began.
--
-- KEYS[1]  the hash of the account's cached reads. A write deletes it, and the token with it.
-- ARGV     the token that was found before loading, field, value; for a value that is good for less time than the
--          hash, for how many milliseconds.
-- Returns  1 if it was kept.
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] or redis.call('EXISTS', KEYS[1] .. ':h') == 1 then
    return 0
end
local value = ARGV[3]
if ARGV[4] then
    local time = redis.call('TIME')
    value = string.format('%d:', time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4]) .. value
end
redis.call('HSET', KEYS[1], ARGV[2], value)
redis.call('HDEL', KEYS[1], 'l:' .. ARGV[2])
return 1
