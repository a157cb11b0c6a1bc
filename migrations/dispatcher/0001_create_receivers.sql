-- Receivers, and the ledger of what was delivered to them.

create table receivers (
    id uuid primary key,
    tenant text not null,
    name text not null,
    url text not null,
    -- Signs what is sent; shown once, in the answer to its creation.
    secret text not null,
    idempotency_key text,
    created_at timestamptz not null default now(),
    constraint receivers_name unique (tenant, name),
    constraint receivers_idempotency_key unique (tenant, idempotency_key)
);

create table notifications (
    id text primary key,
    tenant text not null,
    payload bytea not null,
    traceparent text,
    received_unix_nano bigint not null,
    arrived_at timestamptz not null default now()
);

create table deliveries (
    number bigint generated always as identity unique,
    -- Hash of notification and receiver; the webhook-id of every attempt.
    id text primary key,
    notification_id text not null references notifications,
    tenant text not null,
    receiver text not null,
    -- Null when there was no receiver of that name.
    receiver_id uuid references receivers,
    alert_id text not null,
    rule_name text not null,
    alert_state text not null,
    -- Sample time of the transition that is told: a receiver hears of one alert in this order.
    alert_updated_unix_nano bigint not null,
    state text not null check (state in ('pending', 'delivered', 'failed')),
    -- Attempts begun.
    attempts integer not null default 0,
    -- Why it failed, or how the last attempt did.
    error text not null default '',
    created_at timestamptz not null default now(),
    next_attempt_at timestamptz default now(),
    -- The process that is at it, and until when it may be believed to be alive.
    claim uuid,
    claimed_until timestamptz,
    finished_at timestamptz,
    -- When the broker had the event that tells how it ended.
    reported_at timestamptz,
    constraint deliveries_once unique (notification_id, receiver)
);

create index deliveries_due on deliveries (receiver_id, next_attempt_at) where state = 'pending';
create index deliveries_in_order on deliveries (receiver_id, alert_id, alert_updated_unix_nano, number)
    where state = 'pending';
create index deliveries_unreported on deliveries (finished_at) where state <> 'pending' and reported_at is null;
create index deliveries_newest on deliveries (tenant, number desc);
create index deliveries_by_alert on deliveries (alert_id, number desc);

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
