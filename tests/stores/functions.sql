-- What a transport needs of a database: functions of the right names that book each key once, and that can be told by
-- operation_type to fail, to wait, or to end their own session. No money rules: those are tested elsewhere.
create schema transport;
create table transport.accounts (id text primary key);
create table transport.booked (key text primary key, account text not null, transaction_id text not null);
create table transport.calls (
    number bigint generated always as identity primary key, function text, items integer, waits boolean, accounts text[]
);

-- Counts attempts: a sequence is not rolled back.
create sequence transport.attempts;

create function transport.run(p_function text, p_items jsonb, p_wait boolean) returns jsonb
language plpgsql as $$
declare
    v_item jsonb;
    v_account text;
    v_locked text;
    v_key text;
    v_replies jsonb := '[]';
begin
    insert into transport.calls (function, items, waits, accounts)
    values (p_function, jsonb_array_length(p_items), p_wait,
            array(select coalesce(item ->> 'team_id', item ->> 'user_id') from jsonb_array_elements(p_items) as item));
    for v_item in select * from jsonb_array_elements(p_items) loop
        v_account := coalesce(v_item ->> 'team_id', v_item ->> 'user_id');
        v_key := coalesce(v_item ->> 'idempotency_key', v_item ->> 'reservation_id');
        if v_item ->> 'operation_type' = 'fail' then
            raise exception 'told to fail' using detail = 'secret detail';
        elsif v_item ->> 'operation_type' = 'sleep' and nextval('transport.attempts') = 1 then
            perform pg_sleep((v_item -> 'metadata' ->> 'seconds')::float);
        end if;
        insert into transport.accounts values (v_account) on conflict do nothing;
        if p_wait then
            select id into v_locked from transport.accounts where id = v_account for update;
        else
            select id into v_locked from transport.accounts where id = v_account for update skip locked;
        end if;
        if v_locked is null then
            v_replies := v_replies || jsonb_build_object('deferred', true);
            continue;
        end if;
        insert into transport.booked values (v_key, v_account, 'txn_' || v_key) on conflict do nothing;
        v_replies := v_replies || jsonb_build_object(
            'transaction_id', 'txn_' || v_key, 'user_id', v_item ->> 'user_id', 'amount', v_item -> 'amount',
            'balance_after', v_item -> 'amount', 'replayed', not found);
    end loop;
    return v_replies;
end
$$;

create function public.ducto_charge(p_items jsonb, p_wait boolean default true) returns jsonb
language sql as $$ select transport.run('ducto_charge', p_items, p_wait) $$;
create function public.ducto_deduct(p_items jsonb, p_wait boolean default true) returns jsonb
language sql as $$ select transport.run('ducto_deduct', p_items, p_wait) $$;

-- A user named once-SQLSTATE or always-SQLSTATE gets that error, once or always.
create function public.ducto_get_balance(p_user_id text) returns jsonb
language plpgsql as $$
declare
    v_attempt bigint := nextval('transport.attempts');
begin
    if p_user_id like 'always-%' or (p_user_id like 'once-%' and v_attempt = 1) then
        raise exception using errcode = split_part(p_user_id, '-', 2), message = 'told to fail';
    elsif p_user_id = 'sleepy' then
        perform pg_sleep(30);
    end if;
    return jsonb_build_object('user_id', p_user_id, 'balance', 9007199254740991, 'lifetime_purchased', v_attempt);
end
$$;

create function public.ducto_ping() returns jsonb language sql as $$ select '{"version": 1}'::jsonb $$;
