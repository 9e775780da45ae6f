-- Reads one answer about pricing from the hash of all of them, and says who loads it when it is too old.
--
-- KEYS[1]  the hash. `g` is its token: whoever loads must still find it when he fills. For each field there are
--          `<field>:d` (digest of the value), `<field>:v` (value), `<field>:t` (when its loading began) and
--          `<field>:l` (until when somebody is loading it). All times are Redis' own, in milliseconds.
-- ARGV     field, token to use if there is none, the digest that the caller has already, the age from which the value
--          is loaded anew while it is still served, the age from which it is not served, the time a loader has.
-- Returns  {token, what to do, digest or '', value or '', now}. What to do: `serve`; `refresh` (serve, and load meanwhile);
--          `load`; `wait` (somebody else loads). The value is left out where the caller has it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local field = ARGV[1]
local found = redis.call('HMGET', KEYS[1], 'g', field .. ':d', field .. ':t', field .. ':l')
local token, digest, began = found[1], found[2], tonumber(found[3])
if not token then
    token = ARGV[2]
    redis.call('HSET', KEYS[1], 'g', token)
    redis.call('PEXPIRE', KEYS[1], 86400000)
end
local leased = found[4] and tonumber(found[4]) > now
-- A clock of Redis that was set back must not make a value live longer.
local age = digest and began <= now and now - began or math.huge
local what = 'serve'
if age >= tonumber(ARGV[5]) then
    what = leased and 'wait' or 'load'
elseif age >= tonumber(ARGV[4]) and not leased then
    what = 'refresh'
end
if what == 'load' or what == 'refresh' then
    redis.call('HSET', KEYS[1], field .. ':l', now + tonumber(ARGV[6]))
end
if what == 'load' or what == 'wait' then
    return {token, what, '', '', now}
end
local value = ''
if digest ~= ARGV[3] then
    value = redis.call('HGET', KEYS[1], field .. ':v')
end
return {token, what, digest, value, now}
