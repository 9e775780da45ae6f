-- Forgets all that was read about pricing, and tells everybody that something was published.
--
-- KEYS[1]  the hash of `pricing_read.lua`.
-- ARGV     the hash's next token, the channel, the version that is active now ('' if not known), and for how many
--          milliseconds the same news is not told again: 0 for the publisher himself. Every process may hear of the
--          same publish from the database and bring it here, and one of them is enough.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if tonumber(ARGV[4]) > 0 then
    local told = redis.call('HMGET', KEYS[1], 'told', 'told:t')
    if told[1] == ARGV[3] and math.abs(now - tonumber(told[2])) < tonumber(ARGV[4]) then
        return 0
    end
end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'g', ARGV[1], 'told', ARGV[3], 'told:t', now)
redis.call('PEXPIRE', KEYS[1], 86400000)
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
