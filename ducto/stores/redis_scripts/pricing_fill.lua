-- Keeps what was loaded, unless something was published since its loading began.
--
-- KEYS[1]  the hash of `pricing_read.lua`.
-- ARGV     token that was found before loading, field, when loading began; then digest and value, or nothing if there
--          is nothing to keep and the next reader may load at once.
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then
    return 0
end
local field = ARGV[2]
redis.call('HDEL', KEYS[1], field .. ':l')
if ARGV[4] then
    redis.call('HSET', KEYS[1], field .. ':t', ARGV[3], field .. ':d', ARGV[4], field .. ':v', ARGV[5])
    redis.call('PEXPIRE', KEYS[1], 86400000)
end
return 1
