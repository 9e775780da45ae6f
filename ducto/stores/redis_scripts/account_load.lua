-- Asks for one cached read of an account, and says who loads it.
--
-- KEYS[1]  the hash of the account's cached reads. `g` is its token: who loads must still find it when he fills.
-- ARGV     field, the value that the caller has seen and could not use ('' if none), token to use if there is none,
--          the hash's lifetime, and the time that a loader has, both in milliseconds.
-- Returns  {what, text}: `held` (the outcome of a write is not known: keep nothing), `found` and the value, `wait`
--          (somebody else loads), `load` and the token.
--
-- The lifetime begins when the hash is made and is never prolonged, so that nothing in it is ever older.
if redis.call('EXISTS', KEYS[1] .. ':h') == 1 then
    return {'held', ''}
end
local found = redis.call('HMGET', KEYS[1], 'g', ARGV[1], 'l:' .. ARGV[1])
local token = found[1]
if not token then
    token = ARGV[3]
    redis.call('HSET', KEYS[1], 'g', token)
    redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
if found[2] and found[2] ~= ARGV[2] then
    return {'found', found[2]}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local leased_until = tonumber(found[3] or 0)
-- Not longer than a lease ever is: the clock may have been set back.
if leased_until > now and leased_until <= now + tonumber(ARGV[5]) then
    return {'wait', ''}
end
redis.call('HSET', KEYS[1], 'l:' .. ARGV[1], now + tonumber(ARGV[5]))
return {'load', token}
