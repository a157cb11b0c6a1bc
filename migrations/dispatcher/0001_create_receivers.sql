-- Receivers, and the ledger of what was delivered to them.
-- States are texts without a check: a newer release may write others beside this one.

create table receivers (
    id uuid primary key,
    tenant text not null,
    name text not null,
    url text not null,
    -- Signs what is sent; shown once, in the answer to its creation or rotation. Encrypted where there is a key.
    secret bytea not null,
    secret_sealed boolean not null,
    -- The one before the last rotation, which signs too for a while.
    old_secret bytea,
    old_secret_sealed boolean,
    old_secret_until timestamptz,
    version bigint not null default 1,
    idempotency_key text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    constraint receivers_name unique (tenant, name),
    constraint receivers_idempotency_key unique (tenant, idempotency_key)
);

-- How each receiver does, apart from what people write. Goes with its receiver, but does not refer to it: a row that is written
-- twice in a transaction would lock its receiver the second time, and who deletes that waits for the transaction already.
create table receiver_state (
    receiver_id uuid primary key,
    tenant text not null,
    -- Failed attempts since it last answered.
    failures integer not null default 0,
    -- Whether its last attempt succeeded.
    proven boolean not null default false,
    -- Nothing is sent before.
    held_until timestamptz,
    -- When there is something to be sent, or a claim runs out; null where there is nothing.
    due_at timestamptz
) with (fillfactor = 50);

create index receiver_state_due on receiver_state (due_at) where due_at is not null;

create table notifications (
    id text primary key,
    tenant text not null,
    payload bytea not null,
    traceparent text,
    group_id text not null,
    sequence bigint not null,
    -- The sequence of the one made before it; 0 for the first.
    previous bigint not null default 0,
    received_unix_nano bigint not null,
    arrived_at timestamptz not null default now()
);

create index notifications_in_order on notifications (group_id, sequence);

-- Of the notifications of a group that were made before `newest`, which has come, and after `oldest`: the last that has not.
-- It looks back no further than 512 of them.
create function missing_before(of_group text, newest bigint, oldest bigint) returns bigint language sql stable as $$
    with recursive chain as (
        select newest as sequence, 0 as steps
        union all
        select came.previous, steps + 1 from chain
        join notifications came on came.group_id = of_group and came.sequence = chain.sequence
        where came.previous > oldest and steps < 512
    )
    select sequence from chain
    where not exists (select from notifications came where came.group_id = of_group and came.sequence = chain.sequence)
$$;

create index notifications_by_age on notifications (arrived_at);

create table deliveries (
    number bigint generated always as identity unique,
    -- Hash of notification and receiver; the webhook-id of every attempt.
    id text primary key,
    notification_id text not null references notifications,
    tenant text not null,
    -- The receiver's name, and its id while there is one of that name.
    receiver text not null,
    receiver_id uuid,
    -- A receiver hears of one group in the order of these.
    group_id text not null,
    sequence bigint not null,
    -- The first of the alerts that are told, and how many they are.
    alert_id text not null,
    rule_name text not null,
    alert_state text not null,
    alerts integer not null,
    state text not null,
    -- The one of its receiver and group that may be sent now; the others wait for it.
    is_next boolean not null default false,
    -- Attempts begun.
    attempts integer not null default 0,
    -- Why it waits, how the last attempt did, or why it is over.
    reason text not null default '',
    created_at timestamptz not null default now(),
    next_attempt_at timestamptz,
    -- The sequence of the last notification before this one that has not come.
    awaits bigint,
    -- The process that is at it, and until when it may be believed to be alive.
    claim uuid,
    claimed_until timestamptz,
    finished_at timestamptz,
    constraint deliveries_once unique (notification_id, receiver)
);

create unique index deliveries_next on deliveries (receiver, group_id) where is_next;
create index deliveries_in_order on deliveries (receiver, group_id, sequence, number) where state = 'pending';
create index deliveries_due on deliveries (receiver_id, next_attempt_at) where is_next;
create index deliveries_claimed on deliveries (receiver_id, claimed_until) where claim is not null;
create index deliveries_awaiting on deliveries (group_id, awaits) where awaits is not null;
create index deliveries_overdue on deliveries (created_at) where state = 'pending';
create index deliveries_without_receiver on deliveries (tenant, receiver) where state = 'pending' and receiver_id is null;
create index deliveries_by_age on deliveries (finished_at) where state <> 'pending';

-- One for each way to ask for a page.
create index deliveries_newest on deliveries (tenant, number desc);
create index deliveries_by_receiver on deliveries (tenant, receiver, number desc);
create index deliveries_by_state on deliveries (tenant, state, number desc);
create index deliveries_by_receiver_and_state on deliveries (tenant, receiver, state, number desc);

-- The alerts that each delivery tells.
create table delivery_alerts (
    alert_id text not null,
    number bigint not null references deliveries (number) on delete cascade,
    primary key (alert_id, number)
);

create index delivery_alerts_by_delivery on delivery_alerts (number);

-- The newest of each group that a receiver has had.
create table heard (
    receiver text not null,
    group_id text not null,
    sequence bigint not null,
    heard_at timestamptz not null default now(),
    primary key (receiver, group_id)
);

create index heard_by_age on heard (heard_at);

create table attempts (
    delivery_id text not null references deliveries,
    number integer not null,
    started_at timestamptz not null,
    -- Null while it runs, and for ever if the process was killed meanwhile.
    duration_millis integer,
    -- 0 when no answer came.
    http_status integer not null default 0,
    error text not null default '',
    primary key (delivery_id, number)
);
