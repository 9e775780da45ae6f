-- Looks at an account before it is asked to spend: the token that a later fill must still find, and what is kept of the
-- last refusal.
--
-- KEYS[1]  the hash of the account's cached reads; see account_load.lua.
-- ARGV     field of the refusal, token to use if there is none, the hash's lifetime in milliseconds, and the longest
--          that a refusal is good for, in milliseconds.
-- Returns  {token, refusal}, each '' where there is none. While the outcome of a write is not known there is neither.
if redis.call('EXISTS', KEYS[1] .. ':h') == 1 then
    return {'', ''}
end
local found = redis.call('HMGET', KEYS[1], 'g', ARGV[1])
local token = found[1]
if not token then
    redis.call('HSET', KEYS[1], 'g', ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3])
    return {ARGV[2], ''}
end
local refusal = found[2]
if not refusal then
    return {token, ''}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local colon = string.find(refusal, ':', 1, true)
local good_until = tonumber(string.sub(refusal, 1, colon - 1))
if good_until <= now or good_until > now + tonumber(ARGV[4]) then
    return {token, ''}
end
return {token, string.sub(refusal, colon + 1)}
